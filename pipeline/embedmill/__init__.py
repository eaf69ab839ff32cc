"""embedmill: a corpus in, committed shards of text embeddings out.

    vectors = embedmill.embed(["a text", "another"])          # float32 [2, dim]
    result = embedmill.run(embedmill.load_config("job.toml"))

Heavy libraries are loaded by the first call that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from embedmill.base import telemetry
from embedmill.base.config import DEFAULT_MODEL, RunConfig
from embedmill.base.configfile import load_config
from embedmill.base.errors import (
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
from embedmill.base.signals import keyboard_interrupts
from embedmill.base.streams import hold_descriptors

# Annotations only: importing the package must not import NumPy or ONNX Runtime.
if TYPE_CHECKING:
    from embedmill.base.records import FloatArray
    from embedmill.jobs.embed import Embedder
    from embedmill.report.run import RunResult

# In every process that computes, and before a library loads that reports.
telemetry.settle(False)

# All that users may rely on; any other name may change.
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


@keyboard_interrupts()
def run(config: RunConfig, *, quiet: bool = False) -> RunResult:
    """Embed a corpus into `config.output.path`, or resume an earlier run.

    Raises ConfigError, InputError, ModelError, DeviceError, OutputError; TooManyQuarantined after writing everything.
    Ctrl-C is raised as KeyboardInterrupt where nothing leaks.
    """
    hold_descriptors()
    telemetry.settle(config.engine.telemetry)
    from embedmill.jobs import run

    return run.run(config, quiet=quiet)


@keyboard_interrupts()
def embed(
    texts: Sequence[str], *, model: str = DEFAULT_MODEL, prompt: str | None = None, provider: str = "auto"
) -> FloatArray:
    """Embed n texts in order: float32 [n, dim].

    `prompt` is put before every text (None: the model's own default). The model is loaded for this
    call; use `Embedder` for many. Raises InputError, ModelError or DeviceError.
    """
    from embedmill.jobs import embed

    return embed.embed(texts, model=model, prompt=prompt, provider=provider)


# Classes load on first use, for NumPy, PyArrow and ONNX Runtime are slow to import.
def __getattr__(name: str) -> Any:
    modules = {"Embedder": "embedmill.jobs.embed", "RunResult": "embedmill.report.run"}
    if name not in modules:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(modules[name]), name)
