"""The engine: batches run on several streams of one session, and results come back work by work."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import numpy as np

from pipeline.config import EngineTable
from pipeline.engine.catalogue import Provider
from pipeline.engine.cores import usable_cores
from pipeline.engine.session import Session
from pipeline.errors import DeviceError, PipelineError
from pipeline.records import Batch, FloatArray, Model, Work

Key = TypeVar("Key")
# Wider than float16 rounding (2e-3 relative), far narrower than a vector that was not normalised.
_NORM_TOLERANCE = 0.01


def _ignore(*_: object) -> None:
    """No one counts the batches."""


class Cancelled(Exception):
    """The engine was told to stop; not an error of the user's."""


class Engine:
    """A session and the threads that feed it; a context manager.

    On CPU one single-threaded stream per core is the rule: every stream computes a batch of its own,
    where one many-threaded session synchronises at every operator (docs/performance.md has what
    was measured).
    """

    def __init__(self, model: Model, provider: Provider, config: EngineTable) -> None:
        """Raises DeviceError where the provider cannot run the model's graph."""
        cores = usable_cores()
        self.provider = provider.name
        self.streams = config.streams or (cores if provider.streams == "cores" else 1)
        self.threads = config.threads or max(1, cores // self.streams)
        self._dim = model.dim
        self._normalized = model.normalized
        graph = model.graphs[provider.graph]
        self._session = Session(
            Path(graph.path), provider, threads=self.threads, optimise=graph.optimise, pad_id=model.pad_id
        )
        self._pool = ThreadPoolExecutor(self.streams, thread_name_prefix="stream")
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self.busy_s = 0.0

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._pool.shutdown(cancel_futures=True)

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
            vectors = np.empty((len(work.tokens.truncated), self._dim), np.float32)
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
        started = time.perf_counter()
        result = self._session.run(work.tokens, batch)
        with self._lock:
            self.busy_s += time.perf_counter() - started
        self._check(result, batch)
        vectors[batch.rows] = result
        on_batch(key, batch)

    def _check(self, vectors: FloatArray, batch: Batch) -> None:
        """Refuse what cannot be an embedding: not finite, or of a length other than 1 where the graph normalises."""
        sound = bool(np.isfinite(vectors).all())
        if sound and self._normalized:
            sound = bool(np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0) < _NORM_TOLERANCE)
        if not sound:
            raise DeviceError(
                f"{self.provider} returned a vector that is not finite or not normalised, in a batch of"
                f" {len(batch.rows)} x {batch.sequence} tokens; nothing of its shard was written"
            )


def _finished(key: Key, vectors: FloatArray, futures: list[Future[None]]) -> tuple[Key, FloatArray]:
    """Wait for all batches of one work; the first error among them ends the rest."""
    done, pending = wait(futures, return_when="FIRST_EXCEPTION")
    for future in pending:
        future.cancel()
    for future in done:
        future.result()
    return key, vectors
