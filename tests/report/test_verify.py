"""A verification is described with counts and problems."""

from __future__ import annotations

from typing import Any

import pytest

from embedmill.report.verify import verify_summary
from embedmill.sink.verify import VerifyResult
from tests.support.outputs import TOTALS


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"complete": True, "problems": []}, ["2 of 2 shards committed (complete)", "as the ledger says"]),
        ({"complete": False, "problems": [], "shards_planned": 5}, ["2 of 5", "not complete: 3 shards are missing"]),
        ({"complete": True, "problems": ["part-00000.parquet differs"]}, ["problem: part-00000.parquet differs"]),
    ],
    ids=["sound", "half", "damaged"],
)
def test_a_verification_tells_the_counts_and_each_problem(found: dict[str, Any], expected: list[str]) -> None:
    words = verify_summary(VerifyResult(**{"shards_planned": 2, "totals": TOTALS, **found}))
    assert "100 rows read = 90 written + 7 quarantined + 3 skipped; 90 vectors" in words
    assert all(part in words for part in expected)


def test_a_damaged_output_is_not_called_sound() -> None:
    found = VerifyResult(complete=True, shards_planned=2, totals=TOTALS, problems=["a vector is not finite"])
    assert "as the ledger says" not in verify_summary(found)
