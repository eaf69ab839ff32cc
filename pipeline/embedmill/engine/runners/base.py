"""Protocol of runners, their facts and their options."""

from __future__ import annotations

from typing import Protocol, Self

from msgspec import Struct

from embedmill.base.records import Batch, FloatArray, Tokens
from embedmill.base.results import MemoryFacts, SessionFacts
from embedmill.engine.spec import EngineSpec

# Losses of a device in a row after which it is given up.
ATTEMPTS = 4


class Cancelled(Exception):
    """Raised where work was cancelled; no error of the user's."""


class RunnerFacts(Struct, frozen=True, kw_only=True):
    """Facts of a runner: sessions that were opened, memory that was watched, and why the device was lost each time."""

    sessions: list[SessionFacts] = []
    memory: MemoryFacts | None = None
    losses: list[str] = []


class RunnerOptions(Struct, frozen=True, kw_only=True):
    """Options of a runner that change no vector.

    watched     batches shrink when memory gets scarce
    measured    peak memory is sampled, from before the first session is opened
    eager       every fixed shape is opened at once, not at its first batch
    most_scale  scale above which no batch runs
    attempts    losses of the device in a row after which a process runner gives up
    """

    watched: bool = True
    measured: bool = False
    eager: bool = False
    most_scale: float = 1.0
    attempts: int = ATTEMPTS


class Runner(Protocol):
    """Runner of single batches, `spec.lanes` of them at once; a context manager."""

    spec: EngineSpec

    def __enter__(self) -> Self:
        """Begin to watch memory."""
        ...

    def __exit__(self, *_: object) -> None:
        """Let go of sessions, probes and processes."""
        ...

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Compute one batch: float32 [texts, dim]. Raises DeviceError, or Cancelled after `cancel`."""
        ...

    def hung(self, seconds: float) -> None:
        """Handle a device without a finished batch for `seconds`. Raises DeviceError where work cannot go on."""
        ...

    def cancel(self) -> None:
        """Start no other batch, nor the rest of one."""
        ...

    @property
    def busy_s(self) -> float:
        """Seconds of computing so far, summed over streams."""
        ...

    def facts(self) -> RunnerFacts:
        """Return the facts so far."""
        ...
