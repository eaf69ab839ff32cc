"""embedmill: a corpus in, committed shards of text embeddings out.

    vectors = embedmill.embed(["a text", "another"])          # float32 [2, dim]
    result = embedmill.run(embedmill.load_config("job.toml"))

Heavy libraries are loaded by the first call that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from embedmill.base.records import FloatArray
    from embedmill.jobs.embed import Embedder
    from embedmill.report.run import RunResult

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
    """Embed a corpus into `config.output.path`, or finish what an earlier run began there.

    Raises a PipelineError: ConfigError, InputError, ModelError, DeviceError, OutputError, or
    TooManyQuarantined once everything is written. Ctrl-C is raised as KeyboardInterrupt where nothing leaks.
    """
    from embedmill.jobs import run

    return run.run(config, quiet=quiet)


@keyboard_interrupts()
def embed(
    texts: Sequence[str], *, model: str = DEFAULT_MODEL, prompt: str | None = None, provider: str = "auto"
) -> FloatArray:
    """Vectors of n texts in their order, float32 [n, dim].

    `prompt` is put before every text (None: the model's own default). The model is loaded for this
    call; use `Embedder` for many. Raises InputError, ModelError or DeviceError.
    """
    from embedmill.jobs import embed

    return embed.embed(texts, model=model, prompt=prompt, provider=provider)


def __getattr__(name: str) -> Any:
    if name == "Embedder":
        from embedmill.jobs.embed import Embedder

        return Embedder
    if name == "RunResult":
        from embedmill.report.run import RunResult

        return RunResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
