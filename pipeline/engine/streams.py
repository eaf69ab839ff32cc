"""The engine: batches run on several streams of one session, and results come back work by work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from pipeline.config import EngineTable
from pipeline.engine.contexts import Contexts
from pipeline.engine.cores import usable_cores
from pipeline.engine.gate import Gate
from pipeline.engine.memory import Guard
from pipeline.engine.sessions import Sessions
from pipeline.engine.shrink import part_at, parts, rows_at
from pipeline.engine.target import Target
from pipeline.engine.watching import has_its_own_memory
from pipeline.errors import DeviceError, OutOfMemory, PipelineError
from pipeline.facts import EngineFacts
from pipeline.records import Batch, Bucket, FloatArray, Model, Packing, Tokens, Work

Key = TypeVar("Key")
# Wider than float16 rounding (2e-3 relative), far narrower than a vector that was not normalised.
_NORM_TOLERANCE = 0.01


def _ignore(*_: object) -> None:
    """No one counts the batches."""


class Cancelled(Exception):
    """The engine was told to stop; not an error of the user's."""


class Engine:
    """The sessions of a target and the threads that feed them; a context manager.

    On CPU one single-threaded stream per core is the rule, on one session: every stream computes a batch
    of its own, where one many-threaded session synchronises at every operator (docs/performance.md has what
    was measured). Where shapes are fixed, each has a session of its own, opened when the first batch needs
    it; two threads then take turns, so that the next batch is padded while one computes.

    Before each batch the guard says at which scale it may run: one that is too large runs in parts. One for which
    there was no memory runs again in halves, alone and in a new session.
    """

    def __init__(
        self,
        model: Model,
        target: Target,
        packing: Packing,
        config: EngineTable,
        *,
        contexts: Contexts | None = None,
        guard: Guard | None = None,
    ) -> None:
        """`guard` watches memory from entering the engine to leaving it.

        Raises DeviceError where the provider cannot run the model's graph, or runs it wrongly.
        """
        cores = usable_cores()
        side_by_side = target.provider.runs == "cores"
        self.target = target
        self.provider = target.provider.name
        self.streams = (config.streams or cores) if side_by_side else 1
        self.threads = config.threads or max(1, cores // self.streams)
        self._model = model
        self._guard = guard or Guard(device=has_its_own_memory(target))
        self._gate = Gate()
        self._scale = 1.0
        self._sessions = Sessions(
            model,
            target,
            threads=self.threads,
            memory_bytes=config.memory_bytes,
            contexts=contexts,
            on_run=self._ran,
        )
        self._pool = ThreadPoolExecutor(self.streams if side_by_side else 2, thread_name_prefix="stream")
        self._cancelled = threading.Event()
        self._buckets = packing.buckets
        self._fixed = bool(packing.buckets)
        if not self._fixed:
            self._sessions.of(None)

    def __enter__(self) -> Engine:
        self._guard.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._pool.shutdown(cancel_futures=True)
        self._guard.__exit__()

    def cancel(self) -> None:
        """Let running batches end and start no others; `embed` then raises Cancelled."""
        self._cancelled.set()

    def embed(
        self, works: Iterable[tuple[Key, Work]], *, on_batch: Callable[[Key, Batch], None] = _ignore
    ) -> Iterator[tuple[Key, FloatArray]]:
        """Vectors of each work, float32 [texts, dim], in the order of the works.

        The next work is taken while one computes, so that no stream waits at the seam between two.
        Where the works end with an error, those before it are finished first.
        `on_batch` is called in a stream's thread after each batch. Raises DeviceError if the runtime
        fails or a vector is not finite.
        """
        running: deque[tuple[Key, FloatArray, list[Future[None]]]] = deque()
        failure: PipelineError | None = None
        iterator = iter(works)
        while failure is None:
            try:
                key, work = next(iterator)
            except StopIteration:
                break
            except PipelineError as error:
                failure = error
                continue
            vectors = np.empty((len(work.tokens.truncated), self._model.dim), np.float32)
            futures = [self._pool.submit(self._run, key, work, batch, vectors, on_batch) for batch in work.batches]
            running.append((key, vectors, futures))
            if len(running) > 1:
                yield _finished(*running.popleft())
        while running:
            yield _finished(*running.popleft())
        if failure is not None:
            raise failure

    def _run(
        self, key: Key, work: Work, batch: Batch, vectors: FloatArray, on_batch: Callable[[Key, Batch], None]
    ) -> None:
        """Compute a batch, in as many parts as memory asks for."""
        lengths, done = work.tokens.lengths, 0
        while done < len(batch.rows):
            if self._cancelled.is_set():
                raise Cancelled
            self._adjust()
            with self._gate.shared():
                scale = self._scale
                part = part_at(batch, lengths, scale, start=done, fixed=self._fixed)
                lacking = self._try(work.tokens, part, vectors)
            if lacking:
                with self._gate.alone():
                    self._in_halves(work.tokens, part, vectors, scale)
                    self._sessions.close(keep=self._shapes())
            done += len(part.rows)
        on_batch(key, batch)

    def _adjust(self) -> None:
        """Take the scale that memory allows now. Sessions of shapes that are no more used give their memory back; so
        does one of any shape when batches shrink, for it keeps what its largest one took."""
        if self._guard.scale() == self._scale:
            return
        with self._gate.alone():
            before, self._scale = self._scale, self._guard.scale()
            if self._fixed or self._scale < before:
                self._sessions.close(keep=self._shapes())

    def _shapes(self) -> list[Bucket | None]:
        """The fixed shapes that are used at the present scale."""
        return [Bucket(rows=rows_at(one.rows, self._scale), sequence=one.sequence) for one in self._buckets]

    def _try(self, tokens: Tokens, batch: Batch, vectors: FloatArray) -> str:
        """Compute a batch; what the runtime said if there was no memory for it, else nothing.

        The error itself is let go: it would keep alive what the runtime holds for the batch.
        """
        try:
            session = self._sessions.of(Bucket(rows=batch.size, sequence=batch.sequence) if self._fixed else None)
            result = session.run(tokens, batch)
        except OutOfMemory as error:
            return str(error)
        self._check(result, batch)
        vectors[batch.rows] = result
        return ""

    def _in_halves(self, tokens: Tokens, batch: Batch, vectors: FloatArray, scale: float) -> None:
        """Compute a batch for which there was no memory, with no other beside it: in halves, and in new sessions, for
        those that failed may fail on. Raises OutOfMemory where there is none for one row."""
        why = f"there was no memory for a batch of {batch.size} x {batch.sequence} tokens"
        self._scale = self._guard.failed(scale, why)
        self._sessions.close()
        for half in parts(batch, tokens.lengths, 0.5, fixed=self._fixed):
            lacking = self._try(tokens, half, vectors)
            if lacking and half.size == 1:
                raise OutOfMemory(
                    f"{self.target.label} has no memory for even one text of {half.sequence} tokens with no other"
                    f" beside it; close what else uses it, or choose another --provider ({lacking})"
                )
            if lacking:
                self._in_halves(tokens, half, vectors, scale / 2)

    def _ran(self, batch: Batch, seconds: float) -> None:
        """Tell the guard; where shapes hardly recur, batches of about one shape are compared."""
        shape = (batch.size, batch.sequence)
        alike = shape if self._fixed else tuple(side.bit_length() for side in shape)
        self._guard.ran(alike, seconds / (batch.size * batch.sequence))

    @property
    def busy_s(self) -> float:
        """Seconds that batches have computed, summed over streams."""
        return self._sessions.busy_s

    def facts(self) -> EngineFacts:
        """What computed so far."""
        return EngineFacts(
            provider=self.provider,
            device=self.target.device.label if self.target.device is not None else "",
            precision=self.target.precision,
            streams=self.streams,
            threads=self.threads,
            sessions=list(self._sessions.facts),
            chosen=self.target.chosen,
            memory=self._guard.facts(),
        )

    def _check(self, vectors: FloatArray, batch: Batch) -> None:
        """Refuse what cannot be an embedding: not finite, or of a length other than 1 where the graph normalises."""
        sound = bool(np.isfinite(vectors).all())
        if sound and self._model.normalized:
            sound = bool(np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0) < _NORM_TOLERANCE)
        if not sound:
            raise DeviceError(
                f"{self.provider} returned a vector that is not finite or not normalised, in a batch of"
                f" {batch.size} x {batch.sequence} tokens; nothing of its shard was written"
            )


def _finished(key: Key, vectors: FloatArray, futures: list[Future[None]]) -> tuple[Key, FloatArray]:
    """Wait for all batches of one work; the first error among them ends the rest."""
    done, pending = wait(futures, return_when="FIRST_EXCEPTION")
    for future in pending:
        future.cancel()
    for future in done:
        future.result()
    return key, vectors
