"""Job of `embedmill plan`: forecast of a run by sample."""

from __future__ import annotations

import logging
import time
from functools import cache

import numpy as np

from embedmill.base.config import RunConfig
from embedmill.base.records import IntArray, Model, Work
from embedmill.batch.pack import pack
from embedmill.engine.engine import Engine
from embedmill.engine.machine.machine import peak_memory_bytes
from embedmill.jobs.job import Job
from embedmill.report.plan import PlanResult
from embedmill.tune.batches import engine_of

LOG = logging.getLogger("embedmill")
# The three that settings are measured with are among them.
_SAMPLE_SHARDS = 9
_TIMED_TOKENS = 24_000
# Estimate per row of id, hash, counts and Parquet's overhead, compressed.
_FACTS_BYTES = 90
# One shard is read ahead, one computes and one is written.
_SHARDS_HELD = 3
_EDGES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


def plan_run(config: RunConfig) -> PlanResult:
    """Plan a job, and time batches of a few shards.

    Writes nothing. Raises the errors that a run would, ConfigError to DeviceError.
    """
    job = Job(config)
    shards = job.plan()
    rows = sum(shard.rows for shard in shards)
    settings = job.settings(cache(lambda: job.sample(shards)), rows=rows, measured=False)
    sampled = list(job.sampled(shards, _SAMPLE_SHARDS))
    works = [Work(tokens=one.tokens, batches=pack(one.tokens.lengths, settings.spec.packing)) for _, one in sampled]
    with engine_of(settings, LOG.info) as engine:
        speed = _tokens_per_s(engine, works, settings.spec.packing.budget_tokens)
    sampled_rows = sum(documents.rows_read for documents, _ in sampled)
    lengths = np.concatenate([np.empty(0, np.int64), *(one.tokens.lengths[one.number] for _, one in sampled)])
    truncated = np.concatenate([np.empty(0, np.bool_), *(one.tokens.truncated[one.number] for _, one in sampled)])
    passages = round(rows * len(lengths) / max(sampled_rows, 1))
    tokens = float(lengths.mean()) if len(lengths) else 0.0
    return PlanResult(
        files=len(job.files),
        left_out=job.left_out,
        input_bytes=sum(file.size_bytes for file in job.files),
        rows=rows,
        shards=len(shards),
        sampled_rows=sampled_rows,
        rejected_share=sum(len(documents.rejected) for documents, _ in sampled) / max(sampled_rows, 1),
        passages=passages,
        tokens_mean=tokens,
        truncated_share=float(truncated.mean()) if len(truncated) else 0.0,
        padding_share=_padding(works),
        histogram=_histogram(lengths),
        provider=engine.provider,
        streams=engine.streams,
        speed_tokens_s=speed,
        seconds=passages * tokens / speed if speed else 0.0,
        memory_bytes=peak_memory_bytes() + _SHARDS_HELD * _shard_bytes(config, job.model),
        output_bytes=passages * (job.model.dim * 4 + _FACTS_BYTES),
    )


def _padding(works: list[Work]) -> float:
    padded = sum(work.padded_tokens for work in works)
    return padded / max(sum(int(work.tokens.offsets[-1]) for work in works), 1) - 1


def _tokens_per_s(engine: Engine, works: list[Work], budget_tokens: int) -> float:
    """Measure tokens per second, without padding, over evenly spread batches."""
    batches = [(work, batch) for work in works for batch in work.batches]
    step = max(1, len(batches) * budget_tokens // _TIMED_TOKENS)
    timed = [Work(tokens=work.tokens, batches=[batch]) for work, batch in batches[::step]]
    if not timed:
        return 0.0
    # The first batches open the session.
    list(engine.embed(enumerate(timed[:2])))
    started = time.monotonic()
    list(engine.embed(enumerate(timed)))
    elapsed = time.monotonic() - started
    return sum(int(work.tokens.lengths[work.batches[0].rows].sum()) for work in timed) / elapsed


def _histogram(lengths: IntArray) -> list[tuple[int, int]]:
    counts = np.bincount(np.searchsorted(_EDGES, lengths), minlength=len(_EDGES))
    used = [(edge, int(count)) for edge, count in zip(_EDGES, counts, strict=False)]
    while used and used[-1][1] == 0:
        used.pop()
    return used


def _shard_bytes(config: RunConfig, model: Model) -> int:
    """Estimate memory of a shard: vectors twice, text, and tokens."""
    limits = config.shard
    return limits.rows * (2 * model.dim * 4 + model.max_tokens * 8) + 2 * limits.text_bytes
