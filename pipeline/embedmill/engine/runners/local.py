"""Batches run in this process: in parts where memory asks for it, and none of their rows is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import numpy as np

from embedmill.base.errors import DeviceError, OutOfMemory
from embedmill.base.records import Batch, Bucket, FloatArray, Tokens
from embedmill.base.results import SessionFacts
from embedmill.engine.memory.attach import guard_for, has_own_memory
from embedmill.engine.memory.guard import Guard
from embedmill.engine.runners.base import Cancelled, RunnerFacts, RunnerOptions
from embedmill.engine.runners.gate import SharedLock
from embedmill.engine.runners.split import part_at, parts, rows_at
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.sessions.pool import SessionPool
from embedmill.engine.spec import EngineSpec


class LocalRunner:
    """The sessions of a target, and the guard that watches its memory; see `Runs`.

    Where shapes are fixed, each has a session of its own, opened when the first batch needs it. Before each batch the
    guard says at which scale it may run: one that is too large runs in parts. One for which there was no memory runs
    again in halves, alone and in a new session.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        contexts: ContextCache | None = None,
        guard: Guard | None = None,
        most_scale: float = 1.0,
    ) -> None:
        """`guard` watches memory from entering the runner to leaving it; no batch runs above `most_scale` of its size.

        Raises DeviceError where the provider cannot run the model's graph, or runs it wrongly.
        """
        self.spec = spec
        self._guard = guard or Guard(device=has_own_memory(spec.target))
        self._gate = SharedLock()
        self._most_scale = most_scale
        self._scale = most_scale
        self._sessions = SessionPool(
            spec.model,
            spec.target,
            threads=spec.threads,
            memory_bytes=spec.memory_bytes,
            contexts=contexts,
            on_run=self._ran,
        )
        self._cancelled = threading.Event()
        self._buckets = spec.packing.buckets
        self._fixed = bool(self._buckets)
        if not self._fixed:
            self._sessions.of(None)

    def __enter__(self) -> Self:
        self._guard.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.__exit__()

    def open(self, bucket: Bucket | None) -> None:
        """Open the session of a fixed shape, or of any, now instead of at its first batch. Raises as `run` does."""
        self._sessions.of(bucket)

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Compute a batch, in as many parts as memory asks for: float32 [texts, dim].

        Raises DeviceError if the runtime fails; OutOfMemory where there is no memory for one row.
        """
        vectors = np.empty((len(batch.rows), self.spec.model.dim), np.float32)
        done = 0
        while done < len(batch.rows):
            if self._cancelled.is_set():
                raise Cancelled
            self._adjust()
            with self._gate.shared():
                scale = self._scale
                part = part_at(batch, tokens.lengths, scale, start=done, fixed=self._fixed)
                mine = vectors[done : done + len(part.rows)]
                lacking = self._try(tokens, part, mine)
            if lacking:
                with self._gate.alone():
                    self._in_halves(tokens, part, mine, scale)
                    self._sessions.close(keep=self._shapes())
            done += len(part.rows)
        return vectors

    def hung(self, seconds: float) -> None:
        """A thread that the runtime holds cannot be ended: raises DeviceError."""
        raise DeviceError(
            f"{self.spec.target.label} has not ended a batch for {seconds:g} s; the run can be resumed, with a larger"
            " engine.timeout_s if batches may take so long"
        )

    def cancel(self) -> None:
        """See Runs."""
        self._cancelled.set()

    @property
    def busy_s(self) -> float:
        """See Runs."""
        return self._sessions.busy_s

    @property
    def sessions(self) -> list[SessionFacts]:
        """The sessions that were opened, in their order."""
        return list(self._sessions.facts)

    @property
    def shrank(self) -> bool:
        """Whether batches were cut because memory was short."""
        memory = self._guard.facts()
        return memory is not None and bool(memory.changes)

    def facts(self) -> RunnerFacts:
        """See Runs."""
        return RunnerFacts(sessions=self.sessions, memory=self._guard.facts())

    def _adjust(self) -> None:
        """Take the scale that memory allows now. SessionPool of shapes that are no more used give their memory back; so
        does one of any shape when batches shrink, for it keeps what its largest one took."""
        if self._allowed() == self._scale:
            return
        with self._gate.alone():
            before, self._scale = self._scale, self._allowed()
            if self._fixed or self._scale < before:
                self._sessions.close(keep=self._shapes())

    def _allowed(self) -> float:
        return min(self._guard.scale(), self._most_scale)

    def _shapes(self) -> list[Bucket | None]:
        """The fixed shapes that are used at the present scale."""
        return [Bucket(rows=rows_at(one.rows, self._scale), sequence=one.sequence) for one in self._buckets]

    def _try(self, tokens: Tokens, batch: Batch, vectors: FloatArray) -> str:
        """Compute a batch; what the runtime said if there was no memory for it, else nothing.

        The error itself is let go: it would keep alive what the runtime holds for the batch.
        """
        try:
            session = self._sessions.of(Bucket(rows=batch.size, sequence=batch.sequence) if self._fixed else None)
            vectors[:] = session.run(tokens, batch)
        except OutOfMemory as error:
            return str(error)
        return ""

    def _in_halves(self, tokens: Tokens, batch: Batch, vectors: FloatArray, scale: float) -> None:
        """Compute a batch for which there was no memory, with no other beside it: in halves, and in new sessions, for
        those that failed may fail on. Raises OutOfMemory where there is none for one row."""
        why = f"there was no memory for a batch of {batch.size} x {batch.sequence} tokens"
        self._scale = min(self._guard.failed(scale, why), self._most_scale)
        self._sessions.close()
        done = 0
        for half in parts(batch, tokens.lengths, 0.5, fixed=self._fixed):
            mine = vectors[done : done + len(half.rows)]
            lacking = self._try(tokens, half, mine)
            if lacking and half.size == 1:
                raise OutOfMemory(
                    f"{self.spec.target.label} has no memory for even one text of {half.sequence} tokens with no other"
                    f" beside it; close what else uses it, or choose another --provider ({lacking})"
                )
            if lacking:
                self._in_halves(tokens, half, mine, scale / 2)
            done += len(half.rows)

    def _ran(self, batch: Batch, seconds: float) -> None:
        """Tell the guard; where shapes hardly recur, batches of about one shape are compared."""
        shape = (batch.size, batch.sequence)
        alike = shape if self._fixed else tuple(side.bit_length() for side in shape)
        self._guard.ran(alike, seconds / (batch.size * batch.sequence))


def open_local(spec: EngineSpec, options: RunnerOptions, notify: Callable[[str], None]) -> LocalRunner:
    """Open a runner in this process; `notify` gets a sentence when batches shrink or grow.

    Raises DeviceError where the provider cannot run the model's graph, or runs it wrongly.
    """
    guard = guard_for(spec.target, spec.memory_fraction, notify) if options.watched else None
    return LocalRunner(spec, contexts=ContextCache(), guard=guard, most_scale=options.most_scale)
