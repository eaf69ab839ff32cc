"""Engine: batches on several streams, results work by work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from embedmill.base.errors import DeviceError, PipelineError
from embedmill.base.records import NORM_TOLERANCE, Batch, FloatArray, Work
from embedmill.base.results import EngineFacts
from embedmill.base.signals import SLICE_S, checkpoint
from embedmill.engine.runners.base import Cancelled, Runner

Key = TypeVar("Key")


class Engine:
    """Threads that feed a runner; a context manager.

    On CPU one single-threaded stream per core computes on one shared session, for a many-threaded session synchronises
    at every operator (docs/performance.md). Elsewhere a few threads take turns, so that the next batch is ready.
    """

    def __init__(self, runner: Runner) -> None:
        """Enter and leave `runner` with the engine."""
        spec = runner.spec
        self.target = spec.target
        self.provider = spec.target.provider.name
        self.streams = spec.streams
        self.threads = spec.threads
        self._model = spec.model
        self._timeout_s = spec.timeout_s
        self._runner = runner
        self._tokens, self._batches, self._counting = 0, 0, threading.Lock()
        self._pool = ThreadPoolExecutor(spec.lanes, thread_name_prefix="stream")
        self._cancelled = threading.Event()
        self._stuck = False

    def __enter__(self) -> Engine:
        self._runner.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._pool.shutdown(wait=not self._stuck, cancel_futures=True)
        self._runner.__exit__()

    def cancel(self) -> None:
        """Start no other batch; `embed` then raises Cancelled."""
        self._cancelled.set()
        self._runner.cancel()

    def embed(
        self, works: Iterable[tuple[Key, Work]], *, on_batch: Callable[[Key, Batch], None] = lambda *_: None
    ) -> Iterator[tuple[Key, FloatArray]]:
        """Embed works in order: float32 [texts, dim] each.

        `on_batch` is called in a stream's thread after each batch. Raises DeviceError if the runtime fails, no batch
        ends any more, or a vector is not finite; an error of the iterable after the works before it.
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
            # Two works at once, so that no stream waits for the last batch of the first.
            if len(running) > 1:
                yield self._finished(*running.popleft())
        while running:
            yield self._finished(*running.popleft())
        if failure is not None:
            raise failure

    def _run(
        self, key: Key, work: Work, batch: Batch, vectors: FloatArray, on_batch: Callable[[Key, Batch], None]
    ) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        result = self._runner.run(work.tokens, batch)
        self._check(result, batch)
        vectors[batch.rows] = result
        with self._counting:
            self._tokens += int(work.tokens.lengths[batch.rows].sum())
            self._batches += 1
        on_batch(key, batch)

    def _finished(self, key: Key, vectors: FloatArray, futures: list[Future[None]]) -> tuple[Key, FloatArray]:
        """Wait for all batches; an error cancels the rest."""
        # Checks are counted, not seconds: a machine that slept did not hang.
        check_s = min(SLICE_S, self._timeout_s / 4)
        done, pending = wait(futures, 0, "FIRST_EXCEPTION")
        # Any batch of any work counts as progress.
        ended, quiet_s = self._batches, 0.0
        while pending and not any(future.exception() for future in done):
            checkpoint()
            done, pending = wait(futures, check_s, "FIRST_EXCEPTION")
            ended, quiet_s = self._batches, 0.0 if self._batches != ended else quiet_s + check_s
            if quiet_s >= self._timeout_s:
                # If the runner gives up, the pool is left without waiting: its thread may never come back.
                self._stuck = True
                self._runner.hung(quiet_s)
                self._stuck, quiet_s = False, 0.0
        for future in pending:
            future.cancel()
        for future in done:
            future.result()
        return key, vectors

    @property
    def busy_s(self) -> float:
        """Return seconds of computing, summed over streams."""
        return self._runner.busy_s

    @property
    def tokens(self) -> int:
        """Return tokens embedded so far, without padding."""
        return self._tokens

    def facts(self) -> EngineFacts:
        """Return facts of the engine and the runner so far."""
        facts = self._runner.facts()
        return EngineFacts(
            provider=self.provider,
            device=self.target.device.label if self.target.device is not None else "",
            precision=self.target.precision,
            streams=self.streams,
            threads=self.threads,
            sessions=facts.sessions,
            chosen=self.target.chosen,
            memory=facts.memory,
            losses=facts.losses,
        )

    def _check(self, vectors: FloatArray, batch: Batch) -> None:
        """Raise DeviceError for vectors that cannot be embeddings."""
        sound = bool(np.isfinite(vectors).all())
        if sound and self._model.normalized:
            sound = bool(np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0) < NORM_TOLERANCE)
        if not sound:
            raise DeviceError(
                f"{self.provider} returned a vector that is not finite or not normalised, in a batch of"
                f" {batch.size} x {batch.sequence} tokens; nothing of its shard was written"
            )
