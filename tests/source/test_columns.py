"""Columns of a job: one type over all files, and errors that name what to set."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from embedmill.base.errors import InputError
from tests.support.corpora import Corpus

LARGE = pa.large_list(pa.string())


def test_carried_types_are_unified_over_the_files_in_any_order(corpus: Corpus) -> None:
    one = {"s": ["x"], "n": [1], "l": pa.nulls(1), "d": pa.array([["a"]]), "text": ["a"]}
    two = {
        "n": [2.5],
        "s": pa.array(["y"], pa.large_string()),
        "l": [["t"]],
        "d": pa.array([["b"]], LARGE),
        "text": ["b"],
    }
    for order in ((one, two), (two, one)):
        for name, table in zip("ab", order, strict=True):
            corpus.write_table(f"{name}.parquet", table)
        carried = corpus.job(columns={"carry": ["s", "n", "l", "d"]}).read().carried
        assert carried.schema.types == [pa.large_string(), pa.float64(), pa.list_(pa.string()), LARGE]
        rows = [{"s": "x", "n": 1.0, "l": None, "d": ["a"]}, {"s": "y", "n": 2.5, "l": ["t"], "d": ["b"]}]
        assert carried.to_pylist() == (rows if order[0] is one else rows[::-1])


@pytest.mark.parametrize(
    "decimal", [pa.decimal32(5, 2), pa.decimal128(5, 0), pa.decimal128(38, 2), pa.decimal256(60, 9)]
)
@pytest.mark.parametrize("bits", [8, 16, 32, 64])
@pytest.mark.parametrize("sign", ["", "u"])
def test_decimals_and_any_integers_become_a_decimal_of_both(
    corpus: Corpus, decimal: pa.DataType, bits: int, sign: str
) -> None:
    largest = 2 ** (bits - (not sign)) - 1
    corpus.write_table("a.parquet", {"text": ["a"], "n": pa.array([Decimal("1")], decimal)})
    corpus.write_table("b.parquet", {"text": ["b"], "n": pa.array([largest], f"{sign}int{bits}")})
    assert corpus.job(columns={"carry": ["n"]}).read().carried.column("n").to_pylist() == [1, largest]


@pytest.mark.parametrize("wrap", [lambda one: [one], lambda one: {"a": one}, lambda one: [{"b": {"a": [one]}}]])
@pytest.mark.parametrize("other", [1.5, 7])
def test_decimals_inside_of_others_never_become_other_numbers(
    corpus: Corpus, wrap: Callable[[Any], Any], other: float
) -> None:
    corpus.write_table("a.parquet", {"text": ["a"], "n": [wrap(Decimal("12345678901234567.89"))]})
    corpus.write_table("b.parquet", {"text": ["b"], "n": [wrap(other)]})
    for files in (["a.parquet", "b.parquet"], ["b.parquet", "a.parquet"]):
        with pytest.raises(InputError, match=r"the carried column 'n' is .* in an earlier file; convert one"):
            corpus.job(*files, columns={"carry": ["n"]}).read()
    corpus.write_table("b.parquet", {"text": ["b"], "n": [wrap(Decimal("0.125"))]})
    values = corpus.job(columns={"carry": ["n"]}).read().carried["n"].to_pylist()
    assert values == [wrap(Decimal("12345678901234567.89")), wrap(Decimal("0.125"))]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([2**53 + 1], [0.5], "cannot become the double of all files unchanged .*9007199254740993 not in range"),
        ([1], ["x"], "'n' is string here, but int64 in an earlier file; convert one"),
        ([Decimal(f"1e-{70}")], [10**9], "'n' is int64 here, but decimal256"),
        ([Decimal("0.1")], [0.1], "'n' is double here, but decimal128"),
        ([True], [1], "'n' is int64 here, but bool"),
        ([dt.datetime(2000, 1, 1)], [dt.datetime(2000, 1, 1, tzinfo=dt.UTC)], "'n' is timestamp.us, tz=UTC. here"),
    ],
)
def test_types_that_cannot_be_unified_unchanged_are_refused(
    corpus: Corpus, first: list[Any], second: list[Any], message: str
) -> None:
    corpus.write_table("a.parquet", {"text": ["a"], "n": first})
    corpus.write_table("b.parquet", {"text": ["b"], "n": second})
    with pytest.raises(InputError, match=rf"[ab]\.parquet: the carried column .*{message}"):
        corpus.job(columns={"carry": ["n"]}).read()


def test_names_of_columns_are_quoted_in_part_where_they_are_long(corpus: Corpus) -> None:
    corpus.write("a.csv", f"id,text{'x' * 10**6}\n1,a\n")
    with pytest.raises(InputError, match=r"there is no column 'text'; the columns are 'id', 'textx+") as info:
        corpus.job().read()
    assert len(str(info.value)) < 1000


def test_a_later_file_without_the_id_names_the_way_without_ids(corpus: Corpus) -> None:
    corpus.write("a.csv", "id,text\n1,a\n")
    corpus.write("b.csv", "key,text\n2,b\n")
    with pytest.raises(InputError, match=r"b\.csv: there is no column 'id'.* or to \"\" for ids made"):
        corpus.job().read()
