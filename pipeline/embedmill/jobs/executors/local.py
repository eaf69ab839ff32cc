"""Local executor: overlaps preparation, inference and writing in this process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from embedmill.base.prefetch import Prefetch
from embedmill.base.records import Batch, FloatArray, Prepared, Shard
from embedmill.base.results import Stages
from embedmill.batch.prepare import packed
from embedmill.engine.engine import Engine
from embedmill.engine.runners.base import Cancelled
from embedmill.jobs.job import Job
from embedmill.report.progress import Progress
from embedmill.source import Reader
from embedmill.tune.batches import Settings, engine_of


@contextmanager
def embedding(
    job: Job,
    settings: Settings,
    shards: Sequence[Shard],
    committed_ids: Iterable[list[str]],
    progress: Progress,
    stages: Stages,
) -> Iterator[tuple[Engine, Iterable[tuple[Prepared, FloatArray]]]]:
    """Yield the engine, and shards with vectors, in order.

    Vectors are float32 [distinct texts, dim]; later rows may repeat `committed_ids`; `stages` gets the seconds of
    preparation.
    """
    with job.reader() as reader:
        # Reading all committed ids takes time, and only a check for duplicates needs them.
        if reader.finds_duplicates:
            for ids in committed_ids:
                reader.remember(ids)
        with (
            _prepared(job, settings, reader, shards, stages) as prepared,
            engine_of(settings, progress.say) as engine,
            _computed(engine, prepared, progress) as embedded,
        ):
            yield engine, embedded


def _prepared(
    job: Job, settings: Settings, reader: Reader, shards: Sequence[Shard], stages: Stages
) -> Prefetch[Prepared]:
    """Prepare the next shard while one computes."""

    # Tokenising a shard takes seconds, and a stopped run should not wait for them.
    def stop_if_closed() -> None:
        if prefetch.closed:
            raise Cancelled

    def prepare(shard: Shard) -> Prepared:
        with job.attempt(shard):
            documents = reader.read(shard)
            stop_if_closed()
            tokenised = job.tokenise(shard, documents, stop_if_closed)
        return packed(shard, documents, tokenised, settings.spec.packing)

    def prepare_all() -> Iterator[Prepared]:
        for shard in shards:
            began = time.monotonic()
            ready = prepare(shard)
            stages.prepare += time.monotonic() - began
            yield ready

    prefetch = Prefetch(prepare_all(), depth=1, name="prepare")
    return prefetch


def _computed(
    engine: Engine, prepared: Prefetch[Prepared], progress: Progress
) -> Prefetch[tuple[Prepared, FloatArray]]:
    """Compute the next shard while one is written."""

    def count(shard: Prepared, batch: Batch) -> None:
        tokens = int(shard.work.tokens.lengths[batch.rows].sum())
        share = tokens / int(shard.work.tokens.offsets[-1])
        progress.advance(share * shard.documents.rows_read, tokens)

    def stop() -> None:
        engine.cancel()
        prepared.close()

    works = ((shard, shard.work) for shard in prepared)
    return Prefetch(engine.embed(works, on_batch=count), depth=1, name="compute", on_close=stop)
