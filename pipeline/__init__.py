"""embedmill: a corpus in, committed shards of text embeddings out.

    vectors = pipeline.embed(["a text", "another"])          # float32 [2, dim]
    result = pipeline.run(pipeline.load_config("job.toml"))

Heavy libraries are loaded by the first call that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config import DEFAULT_MODEL, RunConfig
from pipeline.configfile import load_config
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
    from pipeline.conductor import RunResult
    from pipeline.embedder import Embedder
    from pipeline.records import FloatArray

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


def run(config: RunConfig, *, quiet: bool = False) -> RunResult:
    """Embed a corpus into `config.output.path`, or finish what an earlier run began there.

    Raises a PipelineError: ConfigError, InputError, ModelError, DeviceError, OutputError, or
    TooManyQuarantined once everything is written.
    """
    from pipeline import conductor

    return conductor.run(config, quiet=quiet)


def embed(
    texts: Sequence[str], *, model: str = DEFAULT_MODEL, prompt: str | None = None, provider: str = "auto"
) -> FloatArray:
    """Vectors of n texts in their order, float32 [n, dim].

    `prompt` is put before every text (None: the model's own default). The model is loaded for this
    call; use `Embedder` for many. Raises InputError, ModelError or DeviceError.
    """
    from pipeline import embedder

    return embedder.embed(texts, model=model, prompt=prompt, provider=provider)


def __getattr__(name: str) -> Any:
    if name == "Embedder":
        from pipeline.embedder import Embedder

        return Embedder
    if name == "RunResult":
        from pipeline.conductor import RunResult

        return RunResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
