"""Every kind of damage is reported, and nothing raises."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.base.errors import Corrupt, OutputError
from embedmill.base.records import FloatArray
from embedmill.report.verify import verify_summary
from embedmill.sink.ledger import Ledger
from embedmill.sink.verify import verify
from tests.support.outputs import IDENTITY, ROWS, make_entry, make_job, make_part, make_vectors, write_output

SEED = 20240607
PART = "part-00001.parquet"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return write_output(tmp_path / "out")


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a JSON file in place, its digest too, as somebody who wants to deceive does."""
    values = json.loads(path.read_text())
    change(values)
    blank = json.dumps(values | {"digest": ""})
    path.write_text(json.dumps(values | {"digest": hashlib.sha256(blank.encode()).hexdigest()}))


def found_in(folder: Path) -> list[str]:
    """What a verification finds, and an error as the only problem."""
    try:
        return verify(folder).problems
    except Corrupt as error:
        return [str(error)]


def recommit(folder: Path, data: bytes | memoryview, **entry: Any) -> Path:
    """Write a one-shard output of `data` with a matching hash."""
    with Ledger(folder) as ledger:
        ledger.begin(make_job(1))
        ledger.commit(make_entry(0, **entry), memoryview(data), b"")
    return folder


def test_a_sound_output_has_no_problems_and_the_counts_of_its_ledger(output: Path) -> None:
    found = verify(output)
    assert found.problems == []
    assert found.complete
    assert (found.shards_planned, found.totals.shards) == (3, 3)
    assert (found.totals.rows_read, found.totals.rows_written, found.totals.rows_quarantined) == (18, 17, 1)


def test_an_unfinished_output_is_sound_but_not_complete(tmp_path: Path) -> None:
    found = verify(write_output(tmp_path, committed=1))
    assert found.problems == []
    assert not found.complete
    assert (found.shards_planned, found.totals.shards) == (3, 1)


def test_an_output_without_rows_is_sound(tmp_path: Path) -> None:
    empty = make_part(np.empty((0, 4), np.float32))
    assert verify(recommit(tmp_path, empty, quarantined=ROWS)).problems == []


def test_nothing_is_written_while_an_output_is_checked(output: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [output, *output.rglob("*")]}
    verify(output)
    assert {path: path.stat().st_mtime_ns for path in [output, *output.rglob("*")]} == before


def test_an_output_can_be_checked_while_a_run_owns_it(output: Path) -> None:
    with Ledger(output):
        assert verify(output).problems == []


@pytest.mark.parametrize("start", [0, 100])
def test_a_flipped_bit_anywhere_in_a_part_is_found(output: Path, start: int) -> None:
    # 100 places of the whole file; 100 of the footer, which a reader trusts most.
    data = (output / PART).read_bytes()
    draw = random.Random(SEED + start)
    first = 0 if start == 0 else len(data) - int.from_bytes(data[-8:-4], "little") - 8
    for _ in range(100):
        bit = draw.randrange(8 * first, 8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (output / PART).write_bytes(damaged)
        assert any(PART in problem for problem in verify(output).problems), f"seed {SEED + start}, bit {bit}"


def test_a_truncated_part_is_found(output: Path) -> None:
    data = (output / PART).read_bytes()
    for size in (0, 1, 4, len(data) // 2, len(data) - 8, len(data) - 1):
        (output / PART).write_bytes(data[:size])
        assert any(PART in problem for problem in verify(output).problems), f"cut to {size} bytes"


def test_a_missing_part_is_found(output: Path) -> None:
    (output / PART).unlink()
    assert f"{PART}: committed, but missing" in verify(output).problems


def test_two_parts_that_changed_places_are_found(output: Path) -> None:
    one, other = output / "part-00000.parquet", output / PART
    mine, its = one.read_bytes(), other.read_bytes()
    one.write_bytes(its)
    other.write_bytes(mine)
    assert len(verify(output).problems) == 2


@pytest.mark.parametrize(
    "table",
    [
        pa.table({"id": ["a"]}),
        pa.table({"id": ["a"], "embedding": [1.0]}),
        pa.table({"id": ["a"], "embedding": pa.array([[1.0]], pa.list_(pa.float32()))}),
        pa.table({"id": ["a"], "embedding": pa.array([["x"]], pa.list_(pa.string(), 1))}),
        pa.table({"id": ["a"], "embedding": pa.array([None], pa.list_(pa.float32(), 4))}),
    ],
    ids=["no vectors", "numbers", "ragged lists", "texts", "null"],
)
def test_another_parquet_file_in_the_place_of_a_part_is_found(output: Path, table: pa.Table) -> None:
    footer = {"embed.identity": IDENTITY, "embed.dim": "4"}
    pq.write_table(table.replace_schema_metadata(footer), output / PART)
    assert any(PART in problem for problem in verify(output).problems)


@pytest.mark.parametrize("name", ["part-00003.parquet", "part-99999.parquet"])
def test_a_part_that_is_not_in_the_ledger_is_found(output: Path, name: str) -> None:
    (output / name).write_bytes(make_part())
    assert [problem for problem in verify(output).problems if name in problem]


@pytest.mark.parametrize("text", ["", '{"row":1}\n', None])
def test_a_changed_or_missing_quarantine_file_is_found(output: Path, text: str | None) -> None:
    path = output / "quarantine" / "part-00002.jsonl"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    assert [problem for problem in verify(output).problems if "part-00002.jsonl" in problem]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ordinal", 7),
        ("file", "part-00000.parquet"),
        ("pieces", [[0, 0, ROWS, 0, ROWS]]),
        ("rows_read", ROWS + 1),
        ("rows_written", ROWS - 1),
        ("rows_quarantined", 1),
        ("rows_skipped", 1),
        ("vectors", ROWS - 1),
        ("tokens", 1),
        ("padded_tokens", 1),
        ("truncated", 1),
        ("bytes", 1),
        ("sha256", "0" * 64),
        ("quarantine_sha256", "0" * 64),
        ("identity", "0" * 64),
    ],
)
def test_a_changed_ledger_entry_is_found(output: Path, field: str, value: Any) -> None:
    edit(output / "_ledger" / "00001.json", lambda entry: entry.update({field: value}))
    assert found_in(output)


def test_a_ledger_entry_that_is_gone_is_found(output: Path) -> None:
    (output / "_ledger" / "00001.json").unlink()
    problems = verify(output).problems
    assert any("2 of 3 shards are committed" in problem for problem in problems)
    assert any(PART in problem for problem in problems)


@pytest.mark.parametrize("change", [{"fingerprint": {}}, {"shards": []}])
def test_a_changed_job_is_found(output: Path, change: dict[str, Any]) -> None:
    edit(output / "_ledger" / "job.json", lambda job: job.update(change))
    assert verify(output).problems


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity", "0" * 64),
        ("fingerprint", {}),
        ("totals", {"shards": 3, "rows_read": 17}),
        ("shards", []),
    ],
)
def test_a_changed_manifest_is_found(output: Path, field: str, value: Any) -> None:
    edit(output / "_manifest.json", lambda manifest: manifest.update({field: value}))
    assert any("manifest" in problem for problem in verify(output).problems)


def test_the_same_vectors_by_another_model_are_found_in_the_ledger(tmp_path: Path) -> None:
    other = "0e" * 32
    problems = verify(recommit(tmp_path, make_part(identity=other), identity=other)).problems
    assert problems == [f"part-00000.parquet: its ledger entry is of another job or model ({other[:12]})"]


def test_a_part_by_another_model_is_found_by_its_footer(tmp_path: Path) -> None:
    problems = verify(recommit(tmp_path, make_part(identity="0e" * 32))).problems
    assert problems == ["part-00000.parquet: its footer names another model than the ledger"]


def test_a_part_with_fewer_rows_than_the_ledger_says_is_found(tmp_path: Path) -> None:
    problems = verify(recommit(tmp_path, make_part(make_vectors(ROWS - 1)))).problems
    assert problems == [f"part-00000.parquet: {ROWS - 1} rows, but {ROWS} in the ledger"]


def spoilt(value: float) -> FloatArray:
    vectors = make_vectors()
    vectors[3, 1] = value
    return vectors


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_found(tmp_path: Path, value: float) -> None:
    problems = verify(recommit(tmp_path, make_part(spoilt(value)))).problems
    assert problems == ["part-00000.parquet: a vector is not finite"]


@pytest.mark.parametrize("vectors", [spoilt(3.0), 0.5 * make_vectors(), 0 * make_vectors()])
def test_a_vector_that_is_not_normalised_is_found(tmp_path: Path, vectors: FloatArray) -> None:
    problems = verify(recommit(tmp_path, make_part(vectors))).problems
    assert any("length differs from 1" in problem for problem in problems)


def test_a_part_with_other_dimensions_than_its_footer_is_found(tmp_path: Path) -> None:
    problems = verify(recommit(tmp_path, make_part(np.eye(ROWS, dtype=np.float32)))).problems
    assert problems == [f"part-00000.parquet: vectors of {ROWS} dimensions, but 4 in the footer"]


@pytest.mark.parametrize(
    "column",
    [
        None,
        pa.array([[1.0, 0.0]] * ROWS, pa.list_(pa.float32())),
        pa.array(["x"] * ROWS),
        pa.array([[1.0, 0, 0, 0]] * ROWS, pa.list_(pa.float64(), 4)),
        pa.array([[1.0, 0, 0, 0]] * (ROWS - 1) + [None], pa.list_(pa.float32(), 4)),
    ],
    ids=["none", "ragged", "texts", "double", "null"],
)
def test_a_part_without_proper_vectors_is_found_though_its_entry_names_its_sha256(tmp_path: Path, column: Any) -> None:
    table = pa.table({"id": ["a"] * ROWS} | ({} if column is None else {"embedding": column}))
    footer = {"embed.identity": IDENTITY, "embed.dim": "4", "embed.normalized": "true"}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(footer), sink)
    [problem] = verify(recommit(tmp_path, sink.getvalue().to_pybytes())).problems
    assert "no column of float32 vectors" in problem or "a vector is null" in problem


@pytest.mark.skipif(sys.platform != "linux", reason="a file that can be opened and not read")
@pytest.mark.parametrize("name", [PART, "quarantine/part-00002.jsonl"])
def test_a_file_that_cannot_be_read_is_named(output: Path, name: str) -> None:
    (output / name).unlink()
    (output / name).symlink_to("/proc/self/mem")
    told = "has 0 bytes" if name == PART else "cannot be read"
    assert [problem for problem in verify(output).problems if f"{Path(name).name}: {told}" in problem]


@pytest.mark.parametrize("name", ["", "absent"])
def test_a_folder_that_is_no_output_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="is not an embedmill output"):
        verify(tmp_path / name)


@pytest.mark.parametrize("name", ["_ledger/job.json", "_ledger/00001.json", "_manifest.json"])
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_ledger_that_cannot_be_read_is_corrupt(output: Path, name: str, data: bytes) -> None:
    (output / name).write_bytes(data)
    with pytest.raises(Corrupt, match="cannot be read"):
        verify(output)


@pytest.mark.skipif(sys.platform != "linux", reason="sparse files")
@pytest.mark.parametrize("name", [PART, "quarantine/part-00002.jsonl"])
def test_a_file_of_terabytes_is_not_read(output: Path, name: str) -> None:
    os.truncate(output / name, 1 << 42)
    problems = verify(output).problems
    assert [problem for problem in problems if f"{Path(name).name}: has 4,398,046,511,104 bytes" in problem]
    assert not [problem for problem in problems if "sha256" in problem]


def test_an_output_with_a_copy_of_an_entry_has_no_more_shards_than_planned(output: Path) -> None:
    shutil.copy(output / "_ledger" / "00001.json", output / "_ledger" / "000001.json")
    found = verify(output)
    assert found.problems
    assert verify_summary(found).startswith("3 of 3 shards committed")


def test_a_torn_note_of_an_attempt_is_a_problem_that_the_next_run_mends(tmp_path: Path) -> None:
    output = write_output(tmp_path / "out", committed=1)
    (output / "_ledger" / "attempt").write_bytes(b"{")
    assert verify(output).problems == ["_ledger/attempt: damaged; the next run writes it again, and nothing is lost"]
    write_output(output, begun=True, committed=0)


def test_a_file_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="is no folder, so no embedmill output"):
        verify(tmp_path / "out")
