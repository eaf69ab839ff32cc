"""The conductor of `embedmill plan`: what a run would do, judged by a sample; nothing is written."""

from __future__ import annotations

import logging
import time
from functools import cache

import numpy as np
from msgspec import Struct

from embedmill import source
from embedmill.base.config import RunConfig
from embedmill.base.records import BoolArray, IntArray, Model, Prepared, Shard, Work
from embedmill.base.signals import checkpoint
from embedmill.batch.prepare import Preparation
from embedmill.engine.engine import Engine
from embedmill.engine.machine.machine import peak_memory_bytes
from embedmill.jobs.job import sample_of
from embedmill.jobs.models import find_bundle
from embedmill.report.plan import PlanResult
from embedmill.source.plan import plan
from embedmill.tune.batches import engine_of, settings_for
from embedmill.tune.provider import choose_target

LOG = logging.getLogger("embedmill")
_SAMPLE_SHARDS = 8
_TIMED_TOKENS = 24_000
# A row's id, hash and counts, and Parquet's own share of it, after compression.
_FACTS_BYTES = 90
# One shard is read ahead, one computes and one is written.
_SHARDS_HELD = 3
_EDGES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


class _Sample(Struct, frozen=True, kw_only=True):
    """Facts of some shards: `lengths` int64 [passages] in tokens, `truncated` bool [passages]."""

    rows: int
    rejected: int
    lengths: IntArray
    truncated: BoolArray
    works: list[Work]


def plan_run(config: RunConfig) -> PlanResult:
    """Plan a job, read and tokenise a few of its shards, and time some of their batches.

    Raises the errors that a run would, ConfigError to DeviceError.
    """
    bundle = find_bundle(config.model)
    model = bundle.model(config.text)
    files = source.discover(config.input)
    shards = plan(config, files)
    rows = sum(shard.rows for shard in shards)
    sample = cache(lambda: sample_of(config, model, files, shards))
    target = choose_target(bundle, model, config.text, config.engine, lambda: sample().tokens, texts=rows)
    settings = settings_for(bundle, model, config.text, config.engine, target, sample, rows=0)
    with Preparation(config, model, files, settings.packing) as preparation:
        seen = _sample([preparation.prepare(shard, between=checkpoint) for shard in _spread(shards)])
    with engine_of(model, settings, LOG.info) as engine:
        speed = _tokens_per_s(engine, seen.works, settings.packing.budget_tokens)
    passages = round(rows * len(seen.lengths) / max(seen.rows, 1))
    tokens = float(seen.lengths.mean()) if len(seen.lengths) else 0.0
    return PlanResult(
        files=len(files),
        input_bytes=sum(file.size_bytes for file in files),
        rows=rows,
        shards=len(shards),
        sampled_rows=seen.rows,
        rejected_share=seen.rejected / max(seen.rows, 1),
        passages=passages,
        tokens_mean=tokens,
        truncated_share=float(seen.truncated.mean()) if len(seen.truncated) else 0.0,
        padding_share=_padding(seen.works),
        histogram=_histogram(seen.lengths),
        provider=engine.provider,
        streams=engine.streams,
        speed_tokens_s=speed,
        seconds=passages * tokens / speed if speed else 0.0,
        memory_bytes=peak_memory_bytes() + _SHARDS_HELD * _shard_bytes(config, model),
        output_bytes=passages * (model.dim * 4 + _FACTS_BYTES),
    )


def _padding(works: list[Work]) -> float:
    padded = sum(work.padded_tokens for work in works)
    return padded / max(sum(int(work.tokens.offsets[-1]) for work in works), 1) - 1


def _spread(shards: list[Shard]) -> list[Shard]:
    """A few shards, evenly spaced over the input."""
    numbers = np.unique(np.linspace(0, len(shards) - 1, min(len(shards), _SAMPLE_SHARDS)).round().astype(int))
    return [shards[number] for number in numbers]


def _sample(prepared: list[Prepared]) -> _Sample:
    lengths: list[IntArray] = [shard.work.tokens.lengths[shard.number] for shard in prepared]
    truncated: list[BoolArray] = [shard.work.tokens.truncated[shard.number] for shard in prepared]
    return _Sample(
        rows=sum(shard.documents.rows_read for shard in prepared),
        rejected=sum(len(shard.documents.rejected) for shard in prepared),
        lengths=np.concatenate([np.empty(0, np.int64), *lengths]),
        truncated=np.concatenate([np.empty(0, np.bool_), *truncated]),
        works=[shard.work for shard in prepared],
    )


def _tokens_per_s(engine: Engine, works: list[Work], budget_tokens: int) -> float:
    """Real tokens per second over batches taken evenly from the sample; the first batches warm up."""
    batches = [(work, batch) for work in works for batch in work.batches]
    step = max(1, len(batches) * budget_tokens // _TIMED_TOKENS)
    timed = [Work(tokens=work.tokens, batches=[batch]) for work, batch in batches[::step]]
    if not timed:
        return 0.0
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
    """What a shard takes while it is in work: its vectors twice, its text, and its tokens."""
    limits = config.shard
    return limits.rows * (2 * model.dim * 4 + model.max_tokens * 8) + 2 * limits.text_bytes
