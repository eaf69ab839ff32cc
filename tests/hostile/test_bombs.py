"""Input that is small on disk and large in memory, or long for nothing: bounded, and every row accounted for."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.base.config import MIB
from tests.hostile.conftest import Tally
from tests.hostile.forks import Ending, Forks

# More than an ordinary read of a few rows takes; what is stated in docs/reliability.md.
ALLOWED_BYTES = 512 * MIB
LINE = b'{"id": "good", "text": "stone"}\n'


@pytest.fixture
def ordinary(forks: Forks, tmp_path: Path) -> int:
    """Peak resident bytes of a read of one row."""
    (tmp_path / "ordinary.jsonl").write_bytes(LINE)
    return forks.read(tmp_path / "ordinary.jsonl").peak_bytes


def measured(ending: Ending, ordinary: int, tally: Tally) -> Ending:
    """The case, which must not take more memory than is stated."""
    grown = ending.peak_bytes - ordinary
    tally["MiB above an ordinary read"] = max(grown // MIB, tally["MiB above an ordinary read"])
    assert ending.typed, (ending.error, ending.words)
    assert grown <= ALLOWED_BYTES
    assert ending.conserved
    return ending


def blocks(size: int) -> Iterator[bytes]:
    yield LINE + b'{"id": "bomb", "text": "'
    for _ in range(size // MIB):
        yield b"x" * MIB
    yield b'"}\n' + LINE.replace(b"good", b"last")


def packed(path: Path, size: int) -> Path:
    """A row, a row of `size` bytes, a row; packed as the name says."""
    if path.suffix == ".gz":
        with gzip.open(path, "wb", compresslevel=9) as file:
            file.writelines(blocks(size))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            for block in blocks(size):
                stream.write(block)
    return path


@pytest.mark.hostile
@pytest.mark.parametrize("before", [LINE, b""])
def test_a_line_of_a_hundred_megabytes_is_set_aside_unread(
    forks: Forks, tmp_path: Path, ordinary: int, tally: Tally, before: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(before)
        file.writelines(block.removeprefix(LINE) for block in blocks(100 * MIB))
    ending = measured(forks.defuse(path), ordinary, tally)
    assert (ending.rows_written, ending.rows_quarantined) == (1 + bool(before), 1)


@pytest.mark.hostile
@pytest.mark.parametrize("end", [b'", "n": NaN}', b'", "n": "\\ud83d"}', b'"]', b""])
def test_a_long_row_that_is_not_quite_json_is_held_a_few_times(
    forks: Forks, tmp_path: Path, ordinary: int, tally: Tally, end: bytes
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINE + b'{"id": "x", "text": "' + b'wo\\"rd ' * (4 * MIB) + end + b"\n")
    measured(forks.defuse(path), ordinary, tally)


@pytest.mark.hostile
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_gibibyte_in_a_mebibyte_is_one_row_set_aside_or_is_refused(
    forks: Forks, tmp_path: Path, ordinary: int, tally: Tally, suffix: str
) -> None:
    path = packed(tmp_path / f"a.jsonl{suffix}", 1024 * MIB)
    assert path.stat().st_size < 1.1 * MIB
    ending = measured(forks.defuse(path), ordinary, tally)
    if suffix == ".gz":
        assert (ending.rows_written, ending.rows_quarantined) == (2, 1)
    else:
        assert "limits.expansion" in ending.words
    allowed = measured(forks.defuse(path, limits={"expansion": 100_000}), ordinary, tally)
    assert (allowed.rows_written, allowed.rows_quarantined) == (2, 1)


@pytest.mark.hostile
def test_a_text_that_a_dictionary_repeats_is_held_once(
    forks: Forks, tmp_path: Path, ordinary: int, tally: Tally
) -> None:
    """A few KiB that stand for a GiB of text."""
    path = tmp_path / "a.parquet"
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1024, pa.int32()), pa.array(["stone " * (MIB // 6)]))
    pq.write_table(pa.table({"id": [str(n) for n in range(1024)], "text": column}), path, compression="zstd")
    assert path.stat().st_size < 64 * 1024
    assert measured(forks.defuse(path), ordinary, tally).rows_written == 1024


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["id", "carried"])
@pytest.mark.parametrize("size", [100_000, MIB, 40 * MIB])
def test_an_id_or_carried_value_that_a_dictionary_repeats_is_bounded(
    forks: Forks, tmp_path: Path, ordinary: int, tally: Tally, name: str, size: int
) -> None:
    """A few KiB that stand for ten GiB."""
    path, rows = tmp_path / "a.parquet", (10 << 30) // size
    # A first row without the value says nothing of it.
    numbers = pa.array([None, *[0] * (rows - 1)], pa.int32())
    column = pa.DictionaryArray.from_arrays(numbers, pa.array(["stone " * (size // 6)]))
    columns = {"id": pa.array(range(rows)), "text": pa.array(["stone"] * rows), "carried": pa.nulls(rows, pa.string())}
    pq.write_table(pa.table(columns | {name: column}), path, compression="zstd")
    ending = forks.defuse(path, columns={"carry": ["carried"]}, rows={"duplicate_id": "keep"})
    tally["refused" if ending.error else "set aside" if ending.rows_quarantined else "read"] += 1
    measured(ending, ordinary, tally)


def repeating(count: int) -> pa.Array:
    """A text of 60 KB, again and again, stored once."""
    return pa.DictionaryArray.from_arrays(pa.array(bytes(count), pa.int8()), pa.array(["stone " * 10_000]))


def in_list(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


NESTED = {
    "a list": lambda: in_list(repeating(100_000)),
    "a list in a list": lambda: in_list(in_list(repeating(100_000))),
    "a list in a struct": lambda: pa.StructArray.from_arrays([in_list(repeating(100_000))], ["in"]),
    "structs in a list": lambda: in_list(pa.StructArray.from_arrays([repeating(100_000)], ["in"])),
    "a map": lambda: pa.MapArray.from_arrays(
        pa.array([0, 100_000], pa.int32()), pa.array([str(n) for n in range(100_000)]), repeating(100_000)
    ),
    "numbers": lambda: in_list(pa.array(np.zeros(40 * MIB, np.int8))),
}


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("kind", "rows"),
    # The first row of a group is read before its values can be counted: of numbers, it takes what they take.
    [(kind, rows) for kind in NESTED for rows in (1, 3000) if (kind, rows) != ("numbers", 1)],
)
def test_a_row_that_repeats_a_value_within_itself_is_refused_by_its_column(
    forks: Forks, tmp_path: Path, ordinary: int, tally: Tally, kind: str, rows: int
) -> None:
    """A few KiB that stand for six GB in one row."""
    path, carried = tmp_path / "a.parquet", NESTED[kind]()
    # The long row is the last: what the first of a group is like says nothing of it.
    carried = pa.concat_arrays([pa.nulls(rows - 1, carried.type), carried])
    columns = {"id": pa.array(range(rows)), "text": pa.array(["stone"] * rows), "carried": carried}
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False, write_statistics=False)
    assert path.stat().st_size < MIB
    ending = measured(forks.defuse(path, columns={"carry": ["carried"]}), ordinary, tally)
    assert "'carried." in ending.words
    assert "columns.carry" in ending.words


@pytest.mark.hostile
def test_a_page_of_half_a_gibibyte_in_a_few_bytes_is_refused_or_bounded_by_the_page(
    forks: Forks, tmp_path: Path, tally: Tally
) -> None:
    """Arrow unpacks a page whole: what a page claims is what it takes. Beyond the memory there is, it is an error."""
    path = tmp_path / "a.parquet"
    table = pa.table({"id": ["one"], "text": ["x" * (512 * MIB)]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    ending = forks.defuse(path)
    tally["MiB at the peak"] = ending.peak_bytes // MIB
    assert ending.typed, (ending.error, ending.words)
    assert ending.rows_written == 0
