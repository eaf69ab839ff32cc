"""An id is fresh once in a job."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedmill.source import SeenIds


@given(st.lists(st.lists(st.text("ab", max_size=3), max_size=12), max_size=30))
def test_it_finds_what_a_set_finds(calls: list[list[str]]) -> None:
    seen, known = SeenIds(), set[str]()
    for ids in calls:
        expected = []
        for id in ids:
            expected.append(id not in known)
            known.add(id)
        assert seen.fresh(ids).tolist() == expected


def test_it_holds_eight_bytes_per_id_in_few_arrays() -> None:
    seen = SeenIds()
    for start in range(0, 20_000, 100):
        assert seen.fresh([str(number) for number in range(start, start + 100)]).all()
    assert sum(run.nbytes for run in seen._runs) == 8 * 20_000
    sizes = [len(run) for run in seen._runs]
    assert all(longer >= 2 * shorter for longer, shorter in itertools.pairwise(sizes))
    assert all((np.diff(run.astype(object)) > 0).all() for run in seen._runs)


def test_nothing_is_fresh_in_nothing() -> None:
    assert SeenIds().fresh([]).tolist() == []
