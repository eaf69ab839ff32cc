"""Shards as Parquet files: columns, checksums, encoding of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embedmill.base.errors import Corrupt
from embedmill.base.records import FloatArray
from embedmill.sink.shard import read_ids, shard_bytes, shard_table
from tests.support.outputs import make_part, make_vectors

NO_COLUMNS = pa.table({})
VECTOR_LEAF = "embedding.list.element"


def columns(rows: int, *, chunked: bool = False) -> dict[str, pa.Array]:
    facts = {
        "id": pa.array([f"row {number}" for number in range(rows)], pa.string()),
        "n_tokens": pa.array(range(rows), pa.int32()),
        "truncated": pa.array([False] * rows, pa.bool_()),
        "text_hash": pa.array([f"{number:064x}" for number in range(rows)], pa.string()),
    }
    if chunked:
        facts |= {
            "chunk": pa.array(range(rows), pa.int32()),
            "char_start": pa.array(range(rows), pa.int64()),
            "char_end": pa.array(range(rows), pa.int64()),
        }
    return facts


def written(table: pa.Table, *, compression: str = "zstd") -> pq.ParquetFile:
    data = shard_bytes(table, metadata={"identity": "1d", "dim": "4"}, compression=compression)
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)


def leaves(file: pq.ParquetFile) -> dict[str, Any]:
    """Return column chunks of the first row group by path."""
    group = file.metadata.row_group(0)
    return {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}


def test_the_columns_are_id_vector_and_facts_in_this_order() -> None:
    schema = written(shard_table(columns(3), make_vectors(3), NO_COLUMNS)).schema_arrow
    assert schema.remove_metadata() == pa.schema(
        [
            ("id", pa.string()),
            ("embedding", pa.list_(pa.float32(), 4)),
            ("n_tokens", pa.int32()),
            ("truncated", pa.bool_()),
            ("text_hash", pa.string()),
        ]
    )


def test_chunk_columns_stand_between_id_and_vector() -> None:
    schema = written(shard_table(columns(3, chunked=True), make_vectors(3), NO_COLUMNS)).schema_arrow
    assert schema.names[:5] == ["id", "chunk", "char_start", "char_end", "embedding"]
    assert [schema.field(name).type for name in schema.names[1:4]] == [pa.int32(), pa.int64(), pa.int64()]


CARRIED = {
    "string": pa.array(["a", None, "ü"]),
    "integer": pa.array([1, None, -1], pa.int16()),
    "decimal": pa.array([1, 2, None], pa.decimal128(9, 2)),
    "instant": pa.array([0, None, 1], pa.timestamp("us", "UTC")),
    "bytes": pa.array([b"", b"\xff", None], pa.binary()),
    "list": pa.array([["a"], [], None], pa.list_(pa.string())),
    "struct": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": []}]),
    "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
    "nothing": pa.nulls(3),
    "dotted.name": pa.array([1.5, 2.5, None]),
    "element": pa.array([[1.0], [2.0], None], pa.list_(pa.float32())),
}


@pytest.mark.parametrize("name", CARRIED)
def test_a_carried_column_keeps_its_type_and_values(name: str) -> None:
    carried = pa.table({name: CARRIED[name]})
    table = written(shard_table(columns(3), make_vectors(3), carried)).read()
    assert table.column_names[-1] == name
    assert table.column(name).combine_chunks() == CARRIED[name]
    assert table.schema.field(name).type == CARRIED[name].type


def test_the_vectors_have_no_dictionary_no_statistics_and_no_compression() -> None:
    file = written(shard_table(columns(3), make_vectors(3), pa.table({"element": CARRIED["element"]})))
    vector = leaves(file)[VECTOR_LEAF]
    assert not vector.has_dictionary_page
    assert vector.statistics is None
    assert vector.compression == "UNCOMPRESSED"


@pytest.mark.parametrize(("name", "stored"), [("zstd", "ZSTD"), ("snappy", "SNAPPY"), ("none", "UNCOMPRESSED")])
def test_the_other_columns_are_compressed_as_configured(name: str, stored: str) -> None:
    file = written(shard_table(columns(3), make_vectors(3), pa.table(CARRIED)), compression=name)
    found = {leaf.compression for path, leaf in leaves(file).items() if path != VECTOR_LEAF}
    assert found == {stored}


def test_a_bit_that_flips_inside_a_vector_is_noticed_when_it_is_read() -> None:
    vectors = make_vectors(50)
    data = bytearray(shard_bytes(shard_table(columns(50), vectors, NO_COLUMNS), metadata={}, compression="zstd"))
    at = data.find(vectors.tobytes())
    assert at > 0, "the vectors stand in the file as they are in memory"
    data[at + 100] ^= 1
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(pa.BufferReader(bytes(data)), page_checksum_verification=True)


def test_every_page_has_a_checksum() -> None:
    data = bytearray(make_part(make_vectors(50)))
    file = pq.ParquetFile(pa.BufferReader(bytes(data)))
    for leaf in leaves(file).values():
        damaged = bytearray(data)
        damaged[leaf.data_page_offset + leaf.total_compressed_size - 1] ^= 1
        if leaf.has_dictionary_page:
            damaged = bytearray(data)
            damaged[leaf.data_page_offset - 1] ^= 1
        with pytest.raises(OSError, match="CRC"):
            pq.read_table(pa.BufferReader(bytes(damaged)), page_checksum_verification=True)


def test_a_shard_without_rows_has_the_same_columns() -> None:
    full = written(shard_table(columns(3), make_vectors(3), NO_COLUMNS))
    empty = written(shard_table(columns(0), np.empty((0, 4), np.float32), NO_COLUMNS))
    assert empty.read().num_rows == 0
    assert empty.schema_arrow == full.schema_arrow


def test_the_footer_says_what_made_the_vectors() -> None:
    footer = written(shard_table(columns(3), make_vectors(3), NO_COLUMNS)).metadata.metadata
    assert (footer[b"embed.identity"], footer[b"embed.dim"]) == (b"1d", b"4")


def test_metadata_of_carried_columns_does_not_replace_the_footer() -> None:
    carried = pa.table({"kind": pa.array(["a", "b", "c"])}).replace_schema_metadata({"pandas": "{}"})
    footer = written(shard_table(columns(3), make_vectors(3), carried)).schema_arrow.metadata
    assert sorted(footer) == [b"embed.dim", b"embed.identity"]


def test_row_groups_are_modest() -> None:
    file = written(shard_table(columns(20_000), make_vectors(20_000), NO_COLUMNS))
    groups = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert max(groups) <= 8192
    assert sum(groups) == 20_000


@settings(max_examples=50, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 20), st.integers(1, 9)),
        elements=st.floats(width=32, allow_nan=False),
    )
)
def test_vectors_are_read_back_bit_by_bit(vectors: FloatArray) -> None:
    column = written(shard_table(columns(len(vectors)), vectors, NO_COLUMNS)).read().column("embedding")
    assert column.combine_chunks().flatten().to_numpy().tobytes() == vectors.tobytes()


def test_vectors_that_are_a_view_are_written_in_their_own_order() -> None:
    vectors = make_vectors(6)[::-2]
    column = written(shard_table(columns(3), vectors, NO_COLUMNS)).read().column("embedding")
    np.testing.assert_array_equal(np.array(column.to_pylist(), np.float32), vectors)


def test_the_same_rows_always_make_the_same_bytes() -> None:
    assert bytes(make_part()) == bytes(make_part())


def test_ids_are_read_back(tmp_path: Path) -> None:
    (tmp_path / "part.parquet").write_bytes(make_part(make_vectors(3)))
    assert read_ids(tmp_path / "part.parquet", most_bytes=100) == ["row 0", "row 1", "row 2"]


@pytest.mark.parametrize("damage", ["truncated", "bit", "missing"])
def test_ids_of_a_damaged_file_are_not_believed(tmp_path: Path, damage: str) -> None:
    data = bytearray(make_part(make_vectors(3)))
    first = leaves(pq.ParquetFile(pa.BufferReader(bytes(data))))["id"]
    data[first.data_page_offset - 1] ^= 1
    path = tmp_path / "part.parquet"
    if damage != "missing":
        path.write_bytes(data if damage == "bit" else data[:-20])
    with pytest.raises(Corrupt, match=r"part\.parquet is damaged"):
        read_ids(path, most_bytes=100)
