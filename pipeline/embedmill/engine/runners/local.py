"""Runner in this process: smaller batches when memory is short."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import numpy as np

from embedmill.base.errors import DeviceError, OutOfMemory
from embedmill.base.prefetch import Prefetch
from embedmill.base.records import Batch, Bucket, FloatArray, Tokens
from embedmill.base.results import SessionFacts
from embedmill.engine.memory.attach import guard_for, has_own_memory
from embedmill.engine.memory.guard import Guard
from embedmill.engine.runners.base import Cancelled, RunnerFacts, RunnerOptions
from embedmill.engine.runners.gate import SharedLock
from embedmill.engine.runners.split import next_part, scaled_rows, split_batch
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.sessions.pool import SessionPool
from embedmill.engine.sessions.session import Session
from embedmill.engine.spec import EngineSpec


class LocalRunner:
    """Sessions of a target, guarded against memory shortage; see `Runner`.

    A fixed shape has a session of its own, opened by its first batch. The guard gives the scale at which a batch may
    run: a larger one runs in parts. After an OutOfMemory a batch runs in halves, alone and in a new session.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        contexts: ContextCache | None = None,
        guard: Guard | None = None,
        most_scale: float = 1.0,
        open_session: type[Session] = Session,
    ) -> None:
        """Open the session of free shapes; scale batches below `most_scale`.

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
            open_session=open_session,
        )
        self._cancelled = threading.Event()
        self._buckets = spec.packing.buckets
        self._fixed = bool(self._buckets)
        # At once, so that a provider that fails is known before any text is read.
        if not self._fixed:
            self._sessions.of(None)

    def __enter__(self) -> Self:
        self._guard.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._guard.__exit__()

    def open(self, bucket: Bucket | None) -> None:
        """Open a session before the first batch. Raises as `run`."""
        self._sessions.of(bucket)

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Compute a batch, possibly in parts: float32 [texts, dim].

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
                part = next_part(batch, tokens.lengths, scale, start=done, fixed=self._fixed)
                target = vectors[done : done + len(part.rows)]
                shortage = self._try(tokens, part, target)
            if shortage:
                with self._gate.exclusive():
                    self._in_halves(tokens, part, target, scale)
                    self._sessions.close(keep=self._shapes())
            done += len(part.rows)
        return vectors

    def hung(self, seconds: float) -> None:
        """Raise DeviceError."""
        # No thread can be ended while the runtime holds it.
        raise DeviceError(
            f"{self.spec.target.label} has not ended a batch for {seconds:g} s; the run can be resumed, with a larger"
            " engine.timeout_s if batches may take so long"
        )

    def cancel(self) -> None:
        """See Runner."""
        self._cancelled.set()

    @property
    def busy_s(self) -> float:
        """See Runner."""
        return self._sessions.busy_s

    @property
    def sessions(self) -> list[SessionFacts]:
        """Return facts of all sessions in opening order."""
        return list(self._sessions.facts)

    @property
    def shrank(self) -> bool:
        """Tell if batches were cut because memory was short."""
        memory = self._guard.facts()
        return memory is not None and bool(memory.changes)

    def facts(self) -> RunnerFacts:
        """See Runner."""
        return RunnerFacts(sessions=self.sessions, memory=self._guard.facts())

    def _adjust(self) -> None:
        """Change to the scale that memory allows now."""
        if self._allowed() == self._scale:
            return
        with self._gate.exclusive():
            before, self._scale = self._scale, self._allowed()
            # A session of free shapes keeps the memory of its largest batch until it is closed.
            if self._fixed or self._scale < before:
                self._sessions.close(keep=self._shapes())

    def _allowed(self) -> float:
        return min(self._guard.scale(), self._most_scale)

    def _shapes(self) -> list[Bucket | None]:
        """Return fixed shapes at the present scale."""
        return [Bucket(rows=scaled_rows(one.rows, self._scale), sequence=one.sequence) for one in self._buckets]

    def _try(self, tokens: Tokens, batch: Batch, vectors: FloatArray) -> str:
        """Compute a batch; return the message of an OutOfMemory."""
        try:
            session = self._sessions.of(Bucket(rows=batch.size, sequence=batch.sequence) if self._fixed else None)
            vectors[:] = session.run(tokens, batch)
        except OutOfMemory as error:
            # Not the error: its traceback would keep alive what the runtime holds for the batch.
            return str(error)
        return ""

    def _in_halves(self, tokens: Tokens, batch: Batch, vectors: FloatArray, scale: float) -> None:
        """Compute a failed batch in halves. Raises OutOfMemory."""
        why = f"there was no memory for a batch of {batch.size} x {batch.sequence} tokens"
        self._scale = min(self._guard.failed(scale, why), self._most_scale)
        # A session that ran out of memory may fail for smaller batches too.
        self._sessions.close()
        done = 0
        for half in split_batch(batch, tokens.lengths, 0.5, fixed=self._fixed):
            target = vectors[done : done + len(half.rows)]
            shortage = self._try(tokens, half, target)
            if shortage and half.size == 1:
                raise OutOfMemory(
                    f"{self.spec.target.label} has no memory for even one text of {half.sequence} tokens with no other"
                    f" beside it; close what else uses it, or choose another --provider ({shortage})"
                )
            if shortage:
                self._in_halves(tokens, half, target, scale / 2)
            done += len(half.rows)

    def _ran(self, batch: Batch, seconds: float) -> None:
        """Report the seconds of a batch to the guard."""
        # Free shapes hardly recur: batches whose sides have the same power of two are compared.
        shape = (batch.size, batch.sequence)
        alike = shape if self._fixed else tuple(side.bit_length() for side in shape)
        self._guard.ran(alike, seconds / (batch.size * batch.sequence))


def open_local(spec: EngineSpec, options: RunnerOptions, notify: Callable[[str], None]) -> LocalRunner:
    """Open a runner; `notify` reports changes of batch size.

    Raises DeviceError where the provider cannot run the model's graph, runs it wrongly, or does not end.
    """
    guard = guard_for(spec.target, spec.memory_fraction, notify) if options.watched else None
    opening = (LocalRunner(one, contexts=ContextCache(), guard=guard, most_scale=options.most_scale) for one in [spec])
    # A graph may have no end, and no thread can be ended while the runtime holds it.
    with Prefetch(opening, depth=1, name="opening", timeout_s=spec.timeout_s) as opened:
        try:
            return next(iter(opened))
        except TimeoutError as error:
            raise DeviceError(
                f"{spec.target.label} did not open the model and run a text in {spec.timeout_s:g} s; raise"
                " engine.timeout_s if it may take so long"
            ) from error
