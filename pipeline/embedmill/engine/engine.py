"""The engine: batches run on several streams, and results come back work by work."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

import numpy as np

from embedmill.base.errors import DeviceError, PipelineError
from embedmill.base.records import Batch, FloatArray, Work
from embedmill.base.results import EngineFacts
from embedmill.base.signals import SLICE_S, checkpoint
from embedmill.engine.runners.base import Cancelled, Runner

Key = TypeVar("Key")
# Wider than float16 rounding (2e-3 relative), far narrower than a vector that was not normalised.
_NORM_TOLERANCE = 0.01


def _ignore(*_: object) -> None:
    """No one counts the batches."""


class Engine:
    """A runner and the threads that feed it; a context manager.

    On CPU one single-threaded stream per core is the rule, on one session: every stream computes a batch
    of its own, where one many-threaded session synchronises at every operator (docs/performance.md has what
    was measured). Elsewhere a few threads take turns, so that the next batch is ready when one has computed.
    """

    def __init__(self, runner: Runner) -> None:
        """The runner is entered and left with the engine."""
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
        """Let running batches end and start no others; `embed` then raises Cancelled."""
        self._cancelled.set()
        self._runner.cancel()

    def embed(
        self, works: Iterable[tuple[Key, Work]], *, on_batch: Callable[[Key, Batch], None] = _ignore
    ) -> Iterator[tuple[Key, FloatArray]]:
        """Vectors of each work, float32 [texts, dim], in the order of the works.

        The next work is taken while one computes, so that no stream waits at the seam between two.
        Where the works end with an error, those before it are finished first.
        `on_batch` is called in a stream's thread after each batch. Raises DeviceError if the runtime
        fails, no batch ends any more, or a vector is not finite.
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
        """Wait for all batches of one work; the first error among them ends the rest."""
        # Looks are counted, not seconds: a machine that slept did not hang.
        look_s = min(SLICE_S, self._timeout_s / 4)
        done, pending = wait(futures, 0, "FIRST_EXCEPTION")
        ended, quiet_s = self._batches, 0.0
        while pending and not any(future.exception() for future in done):
            checkpoint()
            done, pending = wait(futures, look_s, "FIRST_EXCEPTION")
            ended, quiet_s = self._batches, 0.0 if self._batches != ended else quiet_s + look_s
            if quiet_s >= self._timeout_s:
                quiet_s = self._hung(quiet_s)
        for future in pending:
            future.cancel()
        for future in done:
            future.result()
        return key, vectors

    def _hung(self, quiet_s: float) -> float:
        """No batch has ended for so long; the seconds to count from if the runner can go on. Raises DeviceError."""
        try:
            self._runner.hung(quiet_s)
        except DeviceError:
            self._stuck = True
            raise
        return 0.0

    @property
    def busy_s(self) -> float:
        """Seconds that batches have computed, summed over streams."""
        return self._runner.busy_s

    @property
    def tokens(self) -> int:
        """Useful tokens that were embedded."""
        return self._tokens

    def facts(self) -> EngineFacts:
        """What computed so far."""
        seen = self._runner.facts()
        return EngineFacts(
            provider=self.provider,
            device=self.target.device.label if self.target.device is not None else "",
            precision=self.target.precision,
            streams=self.streams,
            threads=self.threads,
            sessions=seen.sessions,
            chosen=self.target.chosen,
            memory=seen.memory,
            losses=seen.losses,
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
