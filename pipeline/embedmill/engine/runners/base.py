"""What every runner is: the protocol, its facts, its cancellation."""

from __future__ import annotations

from typing import Protocol, Self

from msgspec import Struct

from embedmill.base.records import Batch, FloatArray, Tokens
from embedmill.base.results import MemoryFacts, SessionFacts
from embedmill.engine.spec import EngineSpec


class Cancelled(Exception):
    """The engine was told to stop; not an error of the user's."""


class RunnerFacts(Struct, frozen=True, kw_only=True):
    """The sessions that were opened, the memory that was watched, and how often and why the device was lost."""

    sessions: list[SessionFacts] = []
    memory: MemoryFacts | None = None
    losses: list[str] = []


class Runner(Protocol):
    """A runner: it computes single batches, `spec.lanes` of them at once; a context manager."""

    spec: EngineSpec

    def __enter__(self) -> Self:
        """What computes is watched from here."""
        ...

    def __exit__(self, *_: object) -> None:
        """And is let go of here."""
        ...

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Vectors of one batch, float32 [texts, dim]. Raises DeviceError, or Cancelled after `cancel`."""
        ...

    def hung(self, seconds: float) -> None:
        """No batch has ended for so long. Raises DeviceError unless the work can go on in spite of it."""
        ...

    def cancel(self) -> None:
        """Run no other batch, nor the rest of one."""
        ...

    @property
    def busy_s(self) -> float:
        """Seconds that batches have computed, summed over streams."""
        ...

    def facts(self) -> RunnerFacts:
        """What computed so far."""
        ...
