"""The engine: batches run on several streams of one session, and results come back work by work."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from pipeline.config import EngineTable
from pipeline.engine.canary import canary_cosine
from pipeline.engine.contexts import Contexts
from pipeline.engine.cores import usable_cores
from pipeline.engine.session import Session
from pipeline.engine.sessionplan import SessionPlan, plan_session
from pipeline.engine.target import Target
from pipeline.errors import DeviceError, PipelineError
from pipeline.records import Batch, Bucket, EngineFacts, FloatArray, Model, Packing, SessionFacts, Work

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
    it; `in_flight` threads then take turns, so that the next batch is padded while one computes.

    Every session first embeds the model's canaries; one that differs too much from the CPU is refused.
    """

    def __init__(
        self,
        model: Model,
        target: Target,
        packing: Packing,
        config: EngineTable,
        *,
        in_flight: int = 2,
        contexts: Contexts | None = None,
    ) -> None:
        """Raises DeviceError where the provider cannot run the model's graph, or runs it wrongly."""
        cores = usable_cores()
        side_by_side = target.provider.runs == "cores"
        self.target = target
        self.provider = target.provider.name
        self.streams = (config.streams or cores) if side_by_side else 1
        self.threads = config.threads or max(1, cores // self.streams)
        self._model = model
        self._memory_bytes = config.memory_bytes
        self._contexts = contexts
        self._sessions: dict[Bucket | None, Session] = {}
        self._facts: list[SessionFacts] = []
        self._tokens = 0
        self._opening, self._counting = threading.Lock(), threading.Lock()
        self._pool = ThreadPoolExecutor(self.streams if side_by_side else in_flight, thread_name_prefix="stream")
        self._cancelled = threading.Event()
        self._fixed = bool(packing.buckets)
        if not self._fixed:
            self._session_for(None)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._pool.shutdown(cancel_futures=True)

    def open(self, bucket: Bucket | None) -> None:
        """Open the session of a fixed shape, or of any, now instead of at its first batch. Raises as `embed` does."""
        self._session_for(bucket)

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
        if self._cancelled.is_set():
            raise Cancelled
        session = self._session_for(Bucket(rows=batch.size, sequence=batch.sequence) if self._fixed else None)
        result = session.run(work.tokens, batch)
        self._check(result, batch)
        vectors[batch.rows] = result
        self._count(int(work.tokens.lengths[batch.rows].sum()))
        on_batch(key, batch)

    def _session_for(self, bucket: Bucket | None) -> Session:
        """The session of a fixed shape, or of any; opened and proved at its first use."""
        with self._opening:
            if bucket not in self._sessions:
                self._sessions[bucket] = self._open(bucket)
            return self._sessions[bucket]

    def _open(self, bucket: Bucket | None) -> Session:
        began = time.perf_counter()
        provider, precision, device = self.target.provider, self.target.precision, self.target.device
        plan = plan_session(
            self._model,
            provider,
            precision,
            threads=self.threads,
            bucket=bucket,
            device=device,
            memory_bytes=self._memory_bytes,
        )
        floor = provider.precisions[precision].floor
        session, cosine = self._proved(plan, bucket)
        if not cosine >= floor and session.context is not None and self._contexts is not None:
            self._contexts.discard(session.context)
            session, cosine = self._proved(plan, bucket)
        if not cosine >= floor:
            raise DeviceError(
                f"{self.target.label} computes this model wrongly: a canary's cosine to its vector on the CPU is"
                f" {cosine:.7f}, and {floor} is the least allowed in {precision}; nothing was embedded with it"
            )
        self._facts.append(
            SessionFacts(
                rows=bucket.rows if bucket is not None else 0,
                sequence=bucket.sequence if bucket is not None else 0,
                nodes_placed=session.nodes_placed,
                nodes=session.nodes,
                canary_cosine=cosine,
                seconds=time.perf_counter() - began,
            )
        )
        return session

    def _proved(self, plan: SessionPlan, bucket: Bucket | None) -> tuple[Session, float]:
        """A session and the least cosine of its canaries."""
        provider, device = self.target.provider, self.target.device
        session = Session(plan, provider, pad_id=self._model.pad_id, device=device, contexts=self._contexts)
        return session, canary_cosine(session, self._model.canaries, bucket)

    @property
    def busy_s(self) -> float:
        """Seconds that batches have computed, summed over streams."""
        return sum(session.busy_s for session in list(self._sessions.values()))

    @property
    def tokens(self) -> int:
        """Useful tokens that were embedded."""
        return self._tokens

    def _count(self, tokens: int) -> None:
        with self._counting:
            self._tokens += tokens

    def facts(self) -> EngineFacts:
        """What computed so far."""
        return EngineFacts(
            provider=self.provider,
            device=self.target.device.label if self.target.device is not None else "",
            precision=self.target.precision,
            streams=self.streams,
            threads=self.threads,
            sessions=list(self._facts),
            chosen=self.target.chosen,
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
