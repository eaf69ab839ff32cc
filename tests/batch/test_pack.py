"""Packing covers each row once, keeps the budget, and is never worse than the obvious way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.records import Batch, Packing
from embedmill.batch.pack import OVERHEAD_TOKENS, distinct, pack

LENGTHS = st.lists(st.integers(2, 300), max_size=120)
BUDGETS = st.integers(1, 2048)


def packed(lengths: Sequence[int], budget_tokens: int) -> list[Batch]:
    return pack(np.array(lengths, np.int64), Packing(budget_tokens=budget_tokens))


def greedy_padded_tokens(lengths: Sequence[int], budget_tokens: int) -> int:
    """Sort, then fill one batch after another: what a careful loop by hand does."""
    total, rows, longest = 0, 0, 0
    for length in sorted(lengths, reverse=True):
        if rows and (rows + 1) * longest > budget_tokens:
            total, rows = total + rows * longest, 0
        longest = length if rows == 0 else longest
        rows += 1
    return total + rows * longest


def every_cut(lengths: Sequence[int], budget_tokens: int) -> Iterator[int]:
    """The cost of each way to cut the sorted rows into batches that keep the budget."""
    ordered = sorted(lengths, reverse=True)
    for count in range(len(ordered)):
        for inner in combinations(range(1, len(ordered)), count):
            sizes = [(stop - start, ordered[start]) for start, stop in pairwise([0, *inner, len(ordered)])]
            if all(rows == 1 or rows * longest <= budget_tokens for rows, longest in sizes):
                yield sum(rows * longest + OVERHEAD_TOKENS for rows, longest in sizes)


def padded_tokens_of(batches: Sequence[Batch]) -> int:
    return sum(batch.size * batch.sequence for batch in batches)


@given(lengths=LENGTHS, budget=BUDGETS)
def test_every_row_is_in_one_batch(lengths: list[int], budget: int) -> None:
    rows = [row for batch in packed(lengths, budget) for row in batch.rows.tolist()]
    assert sorted(rows) == list(range(len(lengths)))


@given(lengths=LENGTHS, budget=BUDGETS)
def test_a_batch_keeps_the_budget_or_has_one_row(lengths: list[int], budget: int) -> None:
    for batch in packed(lengths, budget):
        assert len(batch.rows) == 1 or len(batch.rows) * batch.sequence <= budget


@given(lengths=LENGTHS, budget=BUDGETS)
def test_a_batch_is_as_long_as_its_longest_row(lengths: list[int], budget: int) -> None:
    for batch in packed(lengths, budget):
        assert batch.sequence == max(lengths[row] for row in batch.rows.tolist())


@given(lengths=LENGTHS, budget=BUDGETS)
def test_the_longest_batch_comes_first(lengths: list[int], budget: int) -> None:
    sequences = [batch.sequence for batch in packed(lengths, budget)]
    assert sequences == sorted(sequences, reverse=True)


@given(lengths=LENGTHS, budget=BUDGETS)
def test_the_same_lengths_give_the_same_batches(lengths: list[int], budget: int) -> None:
    one, two = packed(lengths, budget), packed(lengths, budget)
    assert [(batch.rows.tolist(), batch.sequence) for batch in one] == [
        (batch.rows.tolist(), batch.sequence) for batch in two
    ]


@given(lengths=LENGTHS, budget=BUDGETS)
def test_no_more_padding_than_filling_batches_one_after_another(lengths: list[int], budget: int) -> None:
    assert padded_tokens_of(packed(lengths, budget)) <= greedy_padded_tokens(lengths, budget)


@given(lengths=st.lists(st.integers(2, 60), min_size=1, max_size=9), budget=st.integers(1, 200))
def test_no_other_cut_of_the_sorted_rows_is_cheaper(lengths: list[int], budget: int) -> None:
    batches = packed(lengths, budget)
    cost = padded_tokens_of(batches) + OVERHEAD_TOKENS * len(batches)
    assert cost == min(every_cut(lengths, budget))


def test_no_rows_make_no_batches() -> None:
    assert packed([], 512) == []


def test_rows_of_one_length_fill_their_batches_without_padding() -> None:
    batches = packed([100] * 12, 512)
    assert [len(batch.rows) for batch in batches].count(5) == 2
    assert padded_tokens_of(batches) == 1200


@pytest.mark.parametrize("longest", [256, 512])
def test_a_shard_of_mixed_texts_wastes_less_than_two_percent(longest: int) -> None:
    draw = np.random.default_rng(3)
    lengths = np.clip(draw.lognormal(4, 0.9, 2048), 3, longest).astype(np.int64)
    waste = padded_tokens_of(pack(lengths, Packing(budget_tokens=512))) / int(lengths.sum()) - 1
    assert waste < 0.02


@given(keys=st.lists(st.sampled_from("abcdefgh"), max_size=40))
def test_every_row_finds_its_key_among_the_distinct_ones(keys: list[str]) -> None:
    first, number = distinct(keys)
    assert [keys[row] for row in first[number]] == keys


@given(keys=st.lists(st.sampled_from("abcdefgh"), max_size=40))
def test_distinct_keys_are_the_first_of_their_kind_in_order(keys: list[str]) -> None:
    first, _ = distinct(keys)
    assert first.tolist() == [row for row, key in enumerate(keys) if key not in keys[:row]]
