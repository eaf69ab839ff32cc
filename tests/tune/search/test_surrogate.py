"""What the times of some sizes say of others."""

from __future__ import annotations

import numpy as np

from embedmill.base.records import Bucket, Packing
from embedmill.tune.search import Mode, Space, ladder_buckets
from embedmill.tune.search.arms import Arms
from embedmill.tune.search.least_squares import Floats
from embedmill.tune.search.surrogate import Surrogate

MODE = Mode(precision="fp32", streams=1, threads=1, floor_bytes=1)
LADDER = Arms(
    Space(
        modes=(MODE,),
        default=Packing(budget_tokens=512),
        buckets=ladder_buckets((64,), longest=128, most_rows=64, most_tokens=8192),
    ),
    np.arange(1, 129),
)


def arm(rows: int, sequence: int) -> int:
    return next(i for i, knobs in enumerate(LADDER.knobs) if knobs.bucket == Bucket(rows=rows, sequence=sequence))


def means(fast: int) -> Floats:
    """After two runs of every batch of 128 tokens' length, `fast` in a third less than the others for its tokens."""
    surrogate = Surrogate(LADDER)
    for number in map(int, np.flatnonzero(LADDER.place[:, 1] == np.log2(128))):
        seconds = LADDER.terms[number, 0] * 1e-4 * (0.67 if number == fast else 1.0)
        for _ in range(2):
            surrogate.observe(number, seconds)
    return surrogate.posterior()[0]


def test_a_number_of_tokens_that_is_fast_in_one_shape_is_thought_fast_in_another() -> None:
    per_token = means(arm(8, 128)) - np.log(LADDER.terms[:, 0])
    assert per_token[arm(16, 64)] < per_token[[arm(8, 64), arm(32, 64)]].min() - 0.05
