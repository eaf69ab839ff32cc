"""embedmill: a corpus in, committed shards of text embeddings out.

    vectors = embedmill.embed(["a text", "another"])          # float32 [2, dim]
    result = embedmill.run(embedmill.load_config("job.toml"))

Heavy libraries are loaded by the first call that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from embedmill.base import log, telemetry
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

# Annotations only: importing the package must not import NumPy or ONNX Runtime, and the command line handles signals
# before the rest is loaded.
if TYPE_CHECKING:
    from embedmill.base.config import RunConfig
    from embedmill.base.configfile import load_config
    from embedmill.base.records import FloatArray
    from embedmill.jobs.embed import Embedder
    from embedmill.report.run import RunResult

# In every process that computes, and before a library loads that reports.
telemetry.settle(False)
log.settle()

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
    texts: Sequence[str], *, model: str | None = None, prompt: str | None = None, provider: str = "auto"
) -> FloatArray:
    """Embed n texts in order: float32 [n, dim].

    `model` None is the default one of `RunConfig`. `prompt` is put before every text (None: the model's own default).
    The model is loaded for this call; use `Embedder` for many. Raises InputError, ModelError or DeviceError.
    """
    from embedmill.base.config import DEFAULT_MODEL
    from embedmill.jobs import embed

    return embed.embed(texts, model=DEFAULT_MODEL if model is None else model, prompt=prompt, provider=provider)


_LAZY = {
    "Embedder": "embedmill.jobs.embed",
    "RunConfig": "embedmill.base.config",
    "RunResult": "embedmill.report.run",
    "load_config": "embedmill.base.configfile",
}


# They load on first use: NumPy, PyArrow and ONNX Runtime are slow to import, and msgspec takes 50 ms.
def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
