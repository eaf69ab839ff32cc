"""embedmill: a corpus in, committed shards of text embeddings out.

    vectors = pipeline.embed(["a text", "another"])          # float32 [2, dim]
    result = pipeline.run(pipeline.load_config("job.toml"))

Heavy libraries are loaded by the first call that needs them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.config import RunConfig, load_config
from pipeline.errors import (
    ConfigError,
    ConservationError,
    Corrupt,
    DeviceError,
    FingerprintMismatch,
    InputError,
    Locked,
    ModelError,
    OutputError,
    PipelineError,
    Stopped,
    TooManyQuarantined,
)

if TYPE_CHECKING:
    from pipeline.run import Embedder, RunResult, embed, run

_FROM_RUN = ("Embedder", "RunResult", "embed", "run")

__all__ = [
    "ConfigError",
    "ConservationError",
    "Corrupt",
    "DeviceError",
    "Embedder",
    "FingerprintMismatch",
    "InputError",
    "Locked",
    "ModelError",
    "OutputError",
    "PipelineError",
    "RunConfig",
    "RunResult",
    "Stopped",
    "TooManyQuarantined",
    "embed",
    "load_config",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _FROM_RUN:
        return getattr(importlib.import_module("pipeline.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
