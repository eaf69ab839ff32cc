"""What a tuner says in the end: a pick, or why there is none."""

from __future__ import annotations

import numpy as np

from pipeline.batch.tuner.arms import Arms
from pipeline.batch.tuner.checks import LEAST_RUNS
from pipeline.batch.tuner.memory import Memory
from pipeline.batch.tuner.spent import Spent
from pipeline.batch.tuner.words import OUT_OF_MEMORY, Observed, Pick
from pipeline.records import Packing

_MIB = 1 << 20


def pick_of(arms: tuple[int, ...], space: Arms, memory: Memory, spent: Spent, observed: list[Observed]) -> Pick:
    """Some arms as a pick after these trials; its rate, its end and what it beat are not known here."""
    knobs = [space.knobs[arm] for arm in arms]
    buckets = tuple(one.bucket for one in knobs if one.bucket is not None)
    told = any(one.observation.peak_bytes is not None for one in observed)
    return Pick(
        mode=knobs[0].mode,
        packing=Packing(budget_tokens=max(one.budget_tokens for one in knobs), buckets=buckets),
        tokens_per_s=0.0,
        peak_bytes=int(memory.bounds()[list(arms)].sum()) if told else None,
        open_seconds=float(spent.opening()[list(arms)].sum()),
        unproven=tuple(bucket for arm, bucket in zip(arms, buckets, strict=False) if memory.runs[arm] < LEAST_RUNS),
        seconds=spent.seconds,
        ended="",
        beats_default=None,
        observations=tuple(observed),
    )


def no_room(space: Arms, memory: Memory, observed: list[Observed]) -> str:
    """Why there is nothing to pick."""
    failures = [one.observation.failure for one in observed if one.observation.failure]
    if failures and failures[-1] != OUT_OF_MEMORY:
        return f"no trial ended well, the last one with: {failures[-1]}"
    least = int(np.argmin(np.where(memory.bounds() > 0, memory.bounds(), np.inf)))
    knobs, need = space.knobs[least], memory.bounds()[least]
    return (
        f"no batch fits: the smallest one ({knobs.mode.precision}, {int(space.demand[least, 1])} padded"
        f" tokens) needs up to {need / _MIB:.0f} MiB and {memory.limit / _MIB:.0f} MiB may be used;"
        " free memory, allow more of it, or choose a smaller model"
    )
