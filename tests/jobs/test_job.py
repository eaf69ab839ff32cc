"""A sample of a job's texts, to measure with."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from embedmill.batch.tokens import joined, length_profile, thinned, with_longest
from tests.support.works import tokens_of

MOST = 256


class TestSample:
    @pytest.mark.parametrize("count", [0, 1, MOST, MOST + 1, 3 * MOST + 7])
    def test_it_is_spread_evenly_and_not_too_large(self, count: int) -> None:
        works = [tokens_of([[number, 3] for number in range(count) if number % 3 == part]) for part in range(3)]
        found = thinned(joined(works), MOST)
        assert min(count, MOST // 2) <= len(found.truncated) <= MOST
        assert len(set(found.ids.tolist()) - {3}) >= len(found.truncated) - 1
        assert found.lengths.tolist() == [2] * len(found.truncated)

    def test_texts_stay_whole(self) -> None:
        works = [tokens_of([[2, 7, 3], [2, 3]]), tokens_of([]), tokens_of([[2, 9, 9, 3]])]
        works[0] = structs.replace(works[0], truncated=np.array([False, True]))
        found = thinned(joined(works), MOST)
        assert found.ids.tolist() == [2, 7, 3, 2, 3, 2, 9, 9, 3]
        assert found.lengths.tolist() == [3, 2, 4]
        assert found.truncated.tolist() == [False, True, False]

    def test_no_works_give_no_texts(self) -> None:
        assert len(thinned(joined([]), MOST).truncated) == 0


def test_texts_of_about_the_same_lengths_have_one_profile() -> None:
    assert length_profile(np.array([9, 10, 11])) == length_profile(np.array([10, 10, 11]))
    assert length_profile(np.array([9, 10, 11])) != length_profile(np.array([9, 10, 110]))


def test_the_longest_text_there_can_be_is_among_the_texts() -> None:
    found = with_longest(tokens_of([[2, 3], [2, 7, 9, 3]]), 10)
    assert found.lengths.tolist() == [2, 4, 10]
    assert found.ids[-10:].tolist() == [2, 7, 9, 3, 2, 7, 9, 3, 2, 7]
