"""A verification is described with counts and problems."""

from __future__ import annotations

from typing import Any

import pytest

from embedmill.report.verify import verify_summary
from embedmill.sink.verify import VerifyResult
from tests.support.outputs import TOTALS

SOUND: dict[str, Any] = {
    "complete": True,
    "writing": False,
    "shards_planned": 2,
    "totals": TOTALS,
    "problems": [],
    "foreign": [],
}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"complete": True, "problems": []}, ["2 of 2 shards committed (complete)", "as the ledger says"]),
        ({"complete": False, "problems": [], "shards_planned": 5}, ["2 of 5", "not complete: 3 shards are missing"]),
        ({"complete": False}, ["2 of 2", "not complete: its manifest is missing, and the same run writes it"]),
        ({"complete": True, "problems": ["part-00000.parquet differs"]}, ["problem: part-00000.parquet differs"]),
        ({"complete": False, "writing": True}, ["a run writes to it: what is committed so far was checked"]),
        ({"foreign": ["b", *"acdef"]}, ["not of this output: b, a, c, d, e and 1 more"]),
    ],
    ids=["sound", "half", "no manifest", "damaged", "in use", "with others"],
)
def test_a_verification_tells_the_counts_and_each_problem(found: dict[str, Any], expected: list[str]) -> None:
    words = verify_summary(VerifyResult(**(SOUND | found)))
    assert "100 rows read = 90 written + 7 quarantined + 3 skipped; 90 vectors" in words
    assert all(part in words for part in expected)


def test_a_damaged_output_is_not_called_sound() -> None:
    found = VerifyResult(**(SOUND | {"problems": ["a vector is not finite"]}))
    assert "as the ledger says" not in verify_summary(found)
