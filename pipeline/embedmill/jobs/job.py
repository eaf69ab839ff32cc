"""The conductor of what a job is before anything computes: its shards, and a sample of its texts."""

from __future__ import annotations

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Model, Packing, Shard
from embedmill.base.signals import checkpoint
from embedmill.batch.prepare import Preparation
from embedmill.batch.tokens import Sample, joined

_ANY_SHAPE = Packing(budget_tokens=1 << 14)


def sample_of(config: RunConfig, model: Model, files: list[InputFile], shards: list[Shard]) -> Sample:
    """Texts out of the first, the middle and the last shard, to measure with."""
    spread = {shard.ordinal: shard for shard in (shards[0], shards[len(shards) // 2], shards[-1])} if shards else {}
    with Preparation(config, model, files, _ANY_SHAPE) as preparation:
        tokens = joined([preparation.prepare(shard, between=checkpoint).work.tokens for shard in spread.values()])
    return Sample(tokens=tokens, rows=sum(shard.rows for shard in spread.values()))
