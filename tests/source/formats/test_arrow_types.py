"""Every type that Parquet can hold is carried unchanged, with rows set aside or without, or is refused by name."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.base.errors import InputError
from embedmill.sink.shard import shard_bytes, shard_table
from embedmill.source.formats.arrow import plain_type
from tests.support.corpora import Corpus

TZ = "Asia/Tokyo"


def dictionary(values: Any, index: pa.DataType | None = None) -> pa.Array:
    """Values as a dictionary."""
    return pa.DictionaryArray.from_arrays(pa.array([0, None, 1, 0], index or pa.int8()), values)


def extension(type: pa.DataType, storage: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(type, storage)


# Four rows each, the second one null.
COLUMNS: dict[str, pa.Array] = {
    "null": pa.nulls(4),
    "bool": pa.array([True, None, False, True]),
    **{
        str(type): pa.array([0, None, 1, 127], type)
        for type in (pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16())
    },
    "int64": pa.array([-(2**63), None, 2**63 - 1, 2**53 + 1]),
    "uint32": pa.array([2**32 - 1, None, 0, 1], pa.uint32()),
    "uint64": pa.array([2**64 - 1, None, 0, 1], pa.uint64()),
    "half": pa.array(np.array([1.5, 0, -0.0, 65504], np.float16), mask=np.array([False, True, False, False])),
    "float": pa.array([1e-45, None, float("inf"), -0.0], pa.float32()),
    "double": pa.array([5e-324, None, float("-inf"), 0.1]),
    "decimal32": pa.array([Decimal("1.50"), None, Decimal("-0.01"), Decimal(0)], pa.decimal32(7, 2)),
    "decimal64": pa.array([Decimal("1.50"), None, Decimal("-0.01"), Decimal(0)], pa.decimal64(18, 2)),
    "decimal128": pa.array([Decimal(10) ** 37, None, Decimal(-1), Decimal(0)], pa.decimal128(38, 0)),
    "decimal256": pa.array([Decimal("9" * 70), None, Decimal(-1), Decimal(0)], pa.decimal256(76, 3)),
    "date32": pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31), dt.date(1970, 1, 1)]),
    "date64": pa.array([dt.date(1, 1, 1), None, dt.date(9999, 12, 31), dt.date(1970, 1, 1)], pa.date64()),
    "time32 s": pa.array([1, None, 86399, 0], pa.time32("s")),
    "time32 ms": pa.array([1, None, 86_399_999, 0], pa.time32("ms")),
    "time64 us": pa.array([1, None, 2, 0], pa.time64("us")),
    "time64 ns": pa.array([1, None, 2, 0], pa.time64("ns")),
    **{
        f"timestamp {unit} {tz}": pa.array([-(2**45), None, 2**45 + 1, 0], pa.timestamp(unit, tz))
        for unit in ("s", "ms", "us", "ns")
        for tz in (None, "UTC", TZ, "+05:30")
    },
    **{f"duration {unit}": pa.array([-1, None, 2**40, 0], pa.duration(unit)) for unit in ("s", "ms", "us", "ns")},
    "string": pa.array(["é", None, "", "a\0b"]),
    "large_string": pa.array(["é", None, "", "x"], pa.large_string()),
    "string_view": pa.array(["é", None, "", "longer than twelve bytes"], pa.string_view()),
    "binary": pa.array([b"\xff", None, b"", b"x"]),
    "large_binary": pa.array([b"\xff", None, b"", b"x"], pa.large_binary()),
    "binary_view": pa.array([b"\xff", None, b"", b"longer than twelve bytes"], pa.binary_view()),
    "fixed binary": pa.array([b"\xff\0", None, b"ab", b"cd"], pa.binary(2)),
    "list": pa.array([[1, None], None, [], [2]]),
    "large_list": pa.array([[1, None], None, [], [2]], pa.large_list(pa.int32())),
    "list_view": pa.array([["a"], None, [], ["b", None]], pa.list_view(pa.string())),
    "large_list_view": pa.array([[1], None, [], [2, None]], pa.large_list_view(pa.int64())),
    "fixed list": pa.array([[1, 2], None, [None, 3], [4, 5]], pa.list_(pa.int8(), 2)),
    "map": pa.array([[("a", 1)], None, [], [("b", None)]], pa.map_(pa.string(), pa.int64())),
    "map of views": pa.array(
        [[("a", ["x"])], None, [], [("b", None)]], pa.map_(pa.string_view(), pa.list_(pa.string_view()))
    ),
    "struct": pa.array([{"x": 1, "y": None}, None, {"x": None, "y": ["a"]}, {"x": 2, "y": []}]),
    "struct of views": pa.array([{"v": "a"}, None, {"v": None}, {"v": "b"}], pa.struct({"v": pa.string_view()})),
    "struct of null": pa.array([{"v": None}, None, {"v": None}, {"v": None}], pa.struct({"v": pa.null()})),
    "list of lists of views": pa.array([[["a"], None], None, [], [[]]], pa.list_(pa.list_(pa.string_view()))),
    "dictionary": dictionary(pa.array(["a", "b"])),
    "dictionary of large strings": dictionary(pa.array(["a", "b"], pa.large_string()), pa.int32()),
    "dictionary of binary": dictionary(pa.array([b"\xff", b"b"])),
    "list of dictionaries": pa.ListArray.from_arrays([0, 1, 2, 3, 4], dictionary(pa.array(["a", "b"]))),
    "struct of dictionaries": pa.StructArray.from_arrays([dictionary(pa.array(["a", "b"]))], ["d"]),
    "uuid": extension(pa.uuid(), pa.array([uuid.UUID(int=1).bytes, None, b"x" * 16, b"y" * 16], pa.binary(16))),
    "list of uuid": pa.ListArray.from_arrays(
        [0, 1, 1, 1, 2], extension(pa.uuid(), pa.array([b"x" * 16, None], pa.binary(16)))
    ),
    "json": extension(pa.json_(), pa.array(["{}", None, "1", "[]"])),
    "bool8": extension(pa.bool8(), pa.array([1, None, 0, 1], pa.int8())),
    "opaque": extension(pa.opaque(pa.string(), "t", "v"), pa.array(["a", None, "", "b"])),
    "opaque of views": extension(
        pa.opaque(pa.string_view(), "t", "v"), pa.array(["a", None, "", "b"], pa.string_view())
    ),
    "tensor": extension(
        pa.fixed_shape_tensor(pa.int8(), [2]), pa.array([[1, 2], None, [3, 4], [5, 6]], pa.list_(pa.int8(), 2))
    ),
}


def values(column: Any) -> list[Any]:
    """The values, whatever holds them: nanoseconds have no Python type."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_time64(column.type) or pa.types.is_timestamp(column.type) or pa.types.is_duration(column.type):
        return [None if one is None else str(one) for one in column.cast(pa.int64()).to_pylist()]
    return list(map(str, column.to_pylist()))


@pytest.mark.parametrize("bad", [None, 0, 2], ids=str)
@pytest.mark.parametrize("store_schema", [True, False])
@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_is_carried_unchanged(
    corpus: Corpus, tmp_path: Path, name: str, store_schema: bool, bad: int | None
) -> None:
    texts = [None if row == bad else f"text {row}" for row in range(4)]
    path = corpus.write_table("a.parquet", {"text": texts, "c": COLUMNS[name]}, store_schema=store_schema)
    there = pq.read_table(path)["c"]
    kept = [row for row in range(4) if row != bad]
    found = corpus.job(columns={"carry": ["c"]}).read()
    assert found.carried.schema.field("c").type == plain_type(there.type)
    expected = [values(there)[row] for row in kept]
    assert values(found.carried["c"]) == expected
    # And once more, as a shard that another reader opens.
    (tmp_path / "out").write_bytes(shard_bytes(table_of(found.carried), metadata={}, compression="zstd"))
    assert values(pq.read_table(tmp_path / "out")["c"]) == expected


def table_of(carried: pa.Table) -> pa.Table:
    """A shard with these carried columns."""
    count = carried.num_rows
    columns = {"id": pa.array(map(str, range(count))), "n_tokens": pa.array([1] * count, pa.int32())}
    columns |= {"truncated": pa.array([False] * count), "text_hash": pa.array(["h"] * count)}
    return shard_table(columns, np.ones((count, 2), np.float32), carried)


LEAVES = st.sampled_from(
    [pa.int8(), pa.string_view(), pa.binary_view(), pa.float64(), pa.date32(), pa.dictionary(pa.int8(), pa.string())]
)
TYPES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(pa.list_view),
        inner.map(lambda type: pa.list_(type, 2)),
        inner.map(lambda type: pa.map_(pa.string_view(), type)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda types: pa.struct([(f"f{n}", type) for n, type in enumerate(types)])
        ),
    ),
    max_leaves=5,
)


def values_of(type: pa.DataType) -> st.SearchStrategy[Any]:
    """Python values of a type, and null."""
    types = pa.types
    found: st.SearchStrategy[Any]
    if types.is_struct(type):
        found = st.fixed_dictionaries({field.name: values_of(field.type) for field in type})
    elif types.is_map(type):
        found = st.dictionaries(st.text(max_size=15), values_of(type.item_type), max_size=3).map(
            lambda pairs: list(pairs.items())
        )
    elif types.is_fixed_size_list(type):
        found = st.lists(values_of(type.value_type), min_size=2, max_size=2)
    elif types.is_nested(type):
        found = st.lists(values_of(type.value_type), max_size=3)
    else:
        leaf: dict[pa.DataType, st.SearchStrategy[Any]] = {
            pa.int8(): st.integers(-128, 127),
            pa.float64(): st.floats(allow_nan=False),
            pa.date32(): st.dates(),
            pa.binary_view(): st.binary(max_size=15),
        }
        found = leaf.get(type, st.text(max_size=15))
    return st.none() | found


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nested_types_are_carried_unchanged(corpus: Corpus, data: st.DataObject) -> None:
    type = data.draw(TYPES)
    rows = data.draw(st.lists(values_of(type), min_size=3, max_size=3))
    bad = data.draw(st.sampled_from([None, 0, 1, 2]))
    try:
        column = pa.array(rows, plain_type(type)).cast(type)
        path = corpus.write_table("a.parquet", {"text": [None if n == bad else "t" for n in range(3)], "c": column})
        there = pq.read_table(path)["c"].to_pylist()
    except pa.ArrowException:
        # Arrow itself cannot make or write such a column.
        return
    carried = corpus.job(columns={"carry": ["c"]}).read().carried
    assert carried["c"].to_pylist() == [row for n, row in enumerate(there) if n != bad]


DAYS = [dt.datetime(1000, 1, 1), None, dt.datetime(2000, 1, 1, 1, 2, 3, 456789), dt.datetime(9999, 12, 31, 23, 59, 59)]


def write_int96(corpus: Corpus, name: str, column: pa.Array) -> None:
    columns = {"text": ["t"] * len(column), "when": column, "in": pa.StructArray.from_arrays([column], ["when"])}
    corpus.write_table(name, columns, use_deprecated_int96_timestamps=True, store_schema=False)


def test_int96_reaches_as_far_as_its_dates(corpus: Corpus) -> None:
    write_int96(corpus, "a.parquet", pa.array(DAYS, pa.timestamp("us")))
    write_int96(corpus, "b.parquet", pa.array([dt.datetime(2020, 1, 1)], pa.timestamp("us")))
    carried = corpus.job(columns={"carry": ["when", "in", "in.when"]}).read().carried
    expected = [*DAYS, dt.datetime(2020, 1, 1)]
    assert carried["when"].to_pylist() == carried["in.when"].to_pylist() == expected
    assert carried["in"].to_pylist() == [{"when": day} for day in expected]
    ids = corpus.job(columns={"id": "when"}).read().ids
    assert ids[0] == "1000-01-01 00:00:00.000000"


def test_int96_with_nanoseconds_keeps_them_or_is_refused(corpus: Corpus) -> None:
    fine = pa.array([1, None, 2**60 + 1], pa.timestamp("ns"))
    write_int96(corpus, "a.parquet", fine)
    carried = corpus.job(columns={"carry": ["when"]}).read().carried
    assert (carried.schema.types, carried["when"].cast(pa.int64()).to_pylist()) == (
        [pa.timestamp("ns")],
        [1, None, 2**60 + 1],
    )
    write_int96(corpus, "b.parquet", pa.array(DAYS, pa.timestamp("us")))
    with pytest.raises(
        InputError, match=r"b\.parquet: the carried column 'when' is timestamp\[us\], and cannot become"
    ):
        corpus.job(columns={"carry": ["when"]}).read()


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (
            extension(pa.uuid(), pa.array([uuid.UUID(int=7).bytes], pa.binary(16))),
            ["00000000-0000-0000-0000-000000000007"],
        ),
        (pa.array([Decimal("1.50"), Decimal("1E+3")], pa.decimal128(9, 2)), ["1.50", "1000.00"]),
        (pa.array([Decimal(12), Decimal(-3)], pa.decimal256(50, 0)), ["12", "-3"]),
        (pa.array([1.0, 2.5, float("nan"), -0.0, 1e300]), ["1", "2.5", None, "0", "1e+300"]),
        (pa.array([0.1, 16777216.0], pa.float32()), ["0.1", "16777216"]),
        (pa.array([1.5, 2], pa.float16()), ["1.5", "2"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([b"ab", b"\xff", b""]), ["ab", None, None]),
        (pa.array([b"a\xff"], pa.binary(2)), ["61ff"]),
        (pa.array([dt.date(2020, 1, 2)]), ["2020-01-02"]),
        (pa.array([dt.date(2020, 1, 2)], pa.date64()), ["2020-01-02"]),
        (pa.array([1], pa.time64("ns")), ["00:00:00.000000001"]),
        (pa.array([1], pa.timestamp("ms", TZ)), ["1970-01-01 00:00:00.001Z"]),
        (pa.array([1], pa.duration("ms")), ["1"]),
        (pa.array([2**31 - 1, 0], pa.date32()), ["2147483647", "1970-01-01"]),
        (pa.array([2**62, 0], pa.timestamp("us")), [str(2**62), "1970-01-01 00:00:00.000000"]),
        (pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_single_values_of_any_type_are_ids(corpus: Corpus, column: pa.Array, ids: list[str | None]) -> None:
    corpus.write_table("a.parquet", {"id": column, "text": ["t"] * len(column)})
    found = corpus.job().read()
    assert found.ids == [id for id in ids if id is not None]
    assert len(found.rejected) == ids.count(None)


def test_an_id_that_is_no_number_is_told_as_that(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", {"id": pa.array([float("nan"), None, 1]), "text": ["t"] * 3})
    corpus.write("b.jsonl", '{"id": NaN, "text": "t"}\n{"id": -Infinity, "text": "t"}\n{"id": null, "text": "t"}\n')
    for name, whats in (("a.parquet", ["NaN", "null"]), ("b.jsonl", ["NaN", "-Infinity", "null"])):
        reasons = [row.reason for row in corpus.job(name).read().rejected]
        assert reasons == [f'"id" is {what}; expected an id' for what in whats]


@pytest.mark.parametrize(
    "type", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())]
)
def test_bytes_that_are_utf8_are_text(corpus: Corpus, type: pa.DataType) -> None:
    plain = pa.array([b"caf\xc3\xa9", b"\xff", None, b""])
    column = plain.dictionary_encode() if pa.types.is_dictionary(type) else plain.cast(type)
    corpus.write_table("a.parquet", {"text": column}, store_schema=False)
    found = corpus.job().read()
    assert found.texts == ["café"]
    assert [row.reason for row in found.rejected] == ['"text" is not valid UTF-8', '"text" is null', '"text" is empty']


def test_a_field_of_a_struct_is_read_with_the_nulls_around_it(corpus: Corpus) -> None:
    rows = [{"text": "a", "n": {"x": 1}}, None, {"text": None, "n": None}, {"text": "d", "n": {"x": None}}]
    column = pa.array(rows, pa.struct({"text": pa.string(), "n": pa.struct({"x": pa.int8()})}))
    corpus.write_table(
        "a.parquet", {"m": column, "m.text": ["w", "x", "y", "z"], "m.n": pa.array(rows)}, row_group_size=3
    )
    found = corpus.job(columns={"text": "m.text", "carry": ["m.n.x", "m"]}).read()
    assert found.texts == ["w", "x", "y", "z"]
    assert found.carried["m"].to_pylist() == rows
    corpus.write_table("a.parquet", {"m": column}, row_group_size=3)
    found = corpus.job(columns={"text": "m.text", "carry": ["m.n.x"]}).read()
    assert (found.texts, found.carried["m.n.x"].to_pylist()) == (["a", "d"], [1, None])
    assert [(row.row, row.reason) for row in found.rejected] == [(2, '"m.text" is null'), (3, '"m.text" is null')]
    with pytest.raises(InputError, match=r"no column 'm\.none'; the columns are 'm'; set columns\.text"):
        corpus.job(columns={"text": "m.none"}).read()


@pytest.mark.parametrize("empty", [{"other": pa.array([], pa.int8())}, {}])
def test_files_without_columns_or_rows_are_skipped_wherever_they_are(corpus: Corpus, empty: dict[str, Any]) -> None:
    for name in "ac":
        corpus.write_table(f"{name}.parquet", empty)
    corpus.write_table("b.parquet", {"text": ["t"], "n": [1]})
    found = corpus.job(columns={"carry": ["n"]}).read()
    assert (found.ids, found.carried.to_pydict()) == (["b.parquet:1"], {"n": [1]})
    assert corpus.job("a.parquet").read().rows_read == 0


@pytest.mark.parametrize("inside", ["x", "{'inner': x}", "[x]"])
def test_an_interval_which_arrow_reads_as_bytes_is_refused_by_name(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "a.parquet"
    rows = f"SELECT 'a' AS text, {inside} AS kind FROM (SELECT INTERVAL 3 MONTH AS x)"
    duckdb.connect().execute(f"COPY ({rows}) TO '{path.as_posix()}' (FORMAT parquet)")
    with pytest.raises(InputError, match=r"the column 'kind.*' is of Parquet's type Interval"):
        Corpus(tmp_path).job(columns={"carry": ["kind"]}).read()
    assert Corpus(tmp_path).job().read().texts == ["a"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("'12:34:56+05:30'::TIMETZ", "'c' is of Parquet's type TIME in UTC"),
        ("['12:34:56+05:30'::TIMETZ]", "'c.list.element' is of Parquet's type TIME in UTC"),
        ("{'a': '12:34:56+05:30'::TIMETZ}", "'c.a' is of Parquet's type TIME in UTC"),
        ("42::VARIANT", "'c' is of Parquet's type Variant"),
        ("INTERVAL 1 DAY", "'c' is of Parquet's type Interval"),
        ("'12:34:56'::TIME", None),
    ],
)
def test_what_arrow_reads_without_its_meaning_is_refused_by_name(corpus: Corpus, value: str, told: str | None) -> None:
    path = corpus.folder / "a.parquet"
    duckdb.sql(f"COPY (SELECT 'a' AS id, 'w' AS text, {value} AS c) TO '{path}'")
    assert corpus.job().read().ids == ["a"]
    if told is None:
        assert corpus.job(columns={"carry": ["c"]}).read().carried["c"].to_pylist() == [dt.time(12, 34, 56)]
        return
    for columns in ({"carry": ["c"]}, {"carry": ["c.a" if "{" in value else "c"]}):
        with pytest.raises(InputError, match=told):
            corpus.job(columns=columns).read()


def test_a_time_in_utc_is_no_id(corpus: Corpus) -> None:
    duckdb.sql(f"COPY (SELECT '12:34:56+05:30'::TIMETZ AS id, 'w' AS text) TO '{corpus.folder / 'a.parquet'}'")
    with pytest.raises(InputError, match="TIME in UTC"):
        corpus.job().read()
