"""What is run so that nothing is picked unseen, and nothing hides between two sizes."""

from __future__ import annotations

import numpy as np

from embedmill.base.records import Bucket
from embedmill.tune.search import Mode, Space, ladder_buckets, powers_of_two
from embedmill.tune.search.arms import Arms
from embedmill.tune.search.checks import Checks
from embedmill.tune.search.objective import Choice

LENGTHS = np.array([4, 8, 16, 32] * 200)
MODES = (
    Mode(precision="fp32", streams=2, threads=1, floor_bytes=1),
    Mode(precision="fp32", streams=1, threads=2, floor_bytes=1),
)
ANY_SHAPE = Arms(Space(modes=MODES, budgets_tokens=powers_of_two(32, 256)), LENGTHS)
LADDER = Arms(
    Space(modes=MODES[:1], buckets=ladder_buckets((8, 32), longest=32, most_rows=4, most_tokens=128)), LENGTHS
)


def next_of(
    arms: Arms, best: Choice, runs: dict[int, int], *, spent_s: float = 1.0, slow: tuple[int, ...] = ()
) -> int | None:
    """With 30 seconds in all; every run takes 0.1 seconds, those of `slow` 5."""
    counts = np.zeros(len(arms), np.int64)
    for arm, count in runs.items():
        counts[arm] = count
    predicted = np.full(len(arms), 0.1)
    predicted[list(slow)] = 5.0
    return Checks(arms, 30.0).next(best, counts, spent_s, np.ones(len(arms), bool), predicted)


def one(arm: int) -> Choice:
    return Choice(arms=(arm,), seconds_per_token=1.0, shares=(1.0,))


def shape(rows: int, sequence: int) -> int:
    return next(i for i, knobs in enumerate(LADDER.knobs) if knobs.bucket == Bucket(rows=rows, sequence=sequence))


def ladder(shares: tuple[float, float] = (0.3, 0.7)) -> Choice:
    return Choice(arms=(shape(2, 8), shape(2, 32)), seconds_per_token=1.0, shares=shares)


class TestAnyShape:
    def test_every_size_of_the_best_mode_is_tried_until_it_ran_on_a_fair_sample(self) -> None:
        assert [knobs.mode for knobs in ANY_SHAPE.knobs[:4]] == [MODES[0]] * 4
        assert next_of(ANY_SHAPE, one(1), {0: 3, 1: 3, 2: 2, 3: 3}) == 2
        assert next_of(ANY_SHAPE, one(1), {0: 3, 1: 3, 2: 3, 3: 3}) is None
        assert next_of(ANY_SHAPE, one(5), {0: 3, 1: 3, 2: 3, 3: 3, 5: 3, 6: 3, 7: 3}) == 4

    def test_what_takes_long_is_left_out_and_so_is_all_of_it_later(self) -> None:
        assert next_of(ANY_SHAPE, one(1), {0: 3, 1: 3, 3: 3}, slow=(2,)) is None
        assert next_of(ANY_SHAPE, one(1), {0: 3, 1: 3, 3: 3}, spent_s=15.0) is None

    def test_towards_the_end_what_looks_best_has_to_show_it_again(self) -> None:
        runs = {0: 3, 1: 4, 2: 3, 3: 3}
        assert next_of(ANY_SHAPE, one(1), runs, spent_s=15.0) is None
        assert next_of(ANY_SHAPE, one(1), runs, spent_s=22.0) == 1
        assert next_of(ANY_SHAPE, one(1), runs | {1: 7}, spent_s=22.0) is None


class TestLadder:
    def test_the_shapes_beside_the_largest_part_are_tried_first(self) -> None:
        runs = {shape(2, 8): 2, shape(2, 32): 2}
        first = next_of(LADDER, ladder(), runs)
        assert first in (shape(1, 32), shape(4, 32))
        runs |= {shape(1, 32): 2, shape(4, 32): 2}
        assert next_of(LADDER, ladder(), runs) in (shape(1, 8), shape(4, 8))
        runs |= {shape(1, 8): 2, shape(4, 8): 2}
        assert next_of(LADDER, ladder(), runs) is None

    def test_what_was_not_run_itself_is_run_before_the_time_ends(self) -> None:
        runs = {shape(2, 8): 2}
        assert next_of(LADDER, ladder(), runs, spent_s=20.0) is None
        assert next_of(LADDER, ladder(), runs, spent_s=29.8) == shape(2, 32)

    def test_what_is_hardly_used_need_not_be_run(self) -> None:
        assert next_of(LADDER, ladder((0.98, 0.02)), {shape(2, 8): 2}, spent_s=29.8) is None

    def test_its_parts_are_not_shown_again(self) -> None:
        assert next_of(LADDER, ladder(), {shape(2, 8): 2, shape(2, 32): 2}, spent_s=25.0) is None
