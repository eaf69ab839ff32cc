"""Protocol of runners, with facts and options."""

from __future__ import annotations

from typing import Protocol, Self

from msgspec import Struct

from embedmill.base.records import Batch, FloatArray, Tokens
from embedmill.base.results import MemoryFacts, SessionFacts
from embedmill.engine.spec import EngineSpec

# Losses of a device in a row after which it is given up.
ATTEMPTS = 4


class Cancelled(Exception):
    """Raised where work was cancelled; no error for users."""


class RunnerFacts(Struct, frozen=True, kw_only=True):
    """Facts of a runner: sessions, memory, and reasons of losses."""

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
    """Runner of single batches, `spec.lanes` at once; a context manager."""

    spec: EngineSpec

    def __enter__(self) -> Self:
        """Begin to watch memory."""

    def __exit__(self, *_: object) -> None:
        """Release sessions, probes and processes."""

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Compute a batch: float32 [texts, dim]. Raises DeviceError, Cancelled."""

    def hung(self, seconds: float) -> None:
        """Handle `seconds` without progress. Raises DeviceError to give up."""

    def cancel(self) -> None:
        """Start no other batch, nor the rest of one."""

    @property
    def busy_s(self) -> float:
        """Return seconds of computing so far, summed over streams."""

    def facts(self) -> RunnerFacts:
        """Return the facts so far."""
