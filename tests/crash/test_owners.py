"""Of several runs that start at once on one output, one owns it and the others are told so at once."""

from __future__ import annotations

import os
import shutil
from collections import Counter

import pytest

from tests.conftest import Tell
from tests.crash.failpoints import Ending, at_once
from tests.crash.steps import points_of
from tests.crash.trials import Trials
from tests.crash.watch import read_trace

pytestmark = [pytest.mark.crash, pytest.mark.skipif(os.name == "nt", reason="forks")]


@pytest.mark.parametrize(("groups", "runs"), [(50, 2), (20, 8)])
def test_one_run_owns_an_output_and_the_others_are_refused_within_a_second(
    five: Trials, tell: Tell, groups: int, runs: int
) -> None:
    """The owner stops at a point of its shards until the others have ended; then every other one is killed."""
    points = points_of(read_trace(five.trace))
    first, last = points["part-00000.parquet", "tmp created"], points["_manifest.json", "tmp removed"]

    def met(group: int) -> list[Ending]:
        place, killed = f"group {group} of {runs}", group % 2 == 1
        output = five.folder / place
        stop_at = first + (last - first) * group // groups
        endings = five.failpoints.order(five.words(output), count=runs, stop_at=stop_at, resume=not killed)
        owners = [ending for ending in endings if ending.stopped]
        others = [ending for ending in endings if not ending.stopped]
        assert [ending.code for ending in owners] == [-9 if killed else 0], place
        assert [ending.code for ending in others] == [6] * (runs - 1), place
        if killed:
            five.ends_equal(output, place)
        else:
            five.is_equal(output, place)
            shutil.rmtree(output)
        return endings

    found = at_once(met, range(groups))
    slowest_s = max(ending.seconds for endings in found for ending in endings if not ending.stopped)
    owners = [ending for endings in found for ending in endings if ending.stopped]
    ends = Counter(f"owner {'killed' if owner.code else 'ended well'}, {runs - 1} refused" for owner in owners)
    assert slowest_s < 1
    tell(f"{groups} groups of {runs} runs, the slowest refusal took {slowest_s * 1000:.0f} ms", ends)


def test_a_refused_run_says_so_in_one_sentence_and_changes_nothing(five: Trials) -> None:
    """Both write to the same file what they say; the owner says nothing."""
    output = five.folder / "said to"
    stop_at = points_of(read_trace(five.trace))["part-00002.parquet", "renamed"]
    said = five.told(output)
    endings = five.failpoints.order(five.words(output), count=2, stop_at=stop_at, said=str(said))
    assert sorted(ending.code for ending in endings) == [0, 6]
    five.is_refused(6, output, "of two", error="Locked")
    five.is_equal(output, "of two")
    shutil.rmtree(output)
