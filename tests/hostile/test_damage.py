"""Damaged Parquet files: a typed error that names the file, or the same documents; never others, never a hang."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.base.errors import Corrupt
from embedmill.base.records import SetAside
from embedmill.jobs.run import run
from embedmill.sink.folder import read_entries
from embedmill.sink.ledger import Ledger
from embedmill.sink.verify import verify
from tests.hostile.conftest import Tally
from tests.hostile.forks import Ending, Forks
from tests.support.jobs import make_config, make_rows, read_output, write_jsonl
from tests.support.tunings import TUNING

SEED = 5
CARRY: dict[str, Any] = {"carry": ["number"]}
WRITERS: dict[str, dict[str, Any]] = {
    "plain": {"compression": "none", "use_dictionary": False},
    "dictionary": {"compression": "none", "use_dictionary": True},
    "snappy": {"compression": "snappy", "use_dictionary": True},
    "zstd": {"compression": "zstd", "use_dictionary": False},
    "gzip-v2": {"compression": "gzip", "use_dictionary": True, "data_page_version": "2.0"},
}


def written(folder: Path, writer: str, *, checksums: bool) -> Path:
    """400 rows in three row groups of several pages; a third of the texts is repeated."""
    rows = [{**row, "number": number} for number, row in enumerate(make_rows(400))]
    for number, row in enumerate(rows):
        row["text"] = f"stone {number % 5}" if number % 3 == 0 else row["text"]
    path = folder / f"{writer}.parquet"
    options = WRITERS[writer] | {"row_group_size": 150, "data_page_size": 1000, "write_page_checksum": checksums}
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def flips(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Copies with one bit flipped: half of them anywhere, half in the footer, which no checksum covers."""
    draw = random.Random(seed)
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for number in range(count):
        bit = draw.randrange(8 * footer if number % 2 else 0, 8 * len(data))
        yield flipped(data, bit)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def said(ending: Ending, good: Ending, path: Path) -> str:
    """In what way a case ended; fails where that is none of those that are promised."""
    assert ending.typed, f"{path.name}: {ending.error} {ending.words}"
    if ending.error:
        assert ending.error == "InputError"
        assert str(path) in ending.words
        return "refused by name"
    assert ending.conserved
    return "same documents" if ending.digest == good.digest else "another text"


@pytest.mark.hostile
@pytest.mark.parametrize("writer", WRITERS)
def test_a_truncated_file_is_refused_by_name(forks: Forks, tmp_path: Path, tally: Tally, writer: str) -> None:
    path = written(tmp_path, writer, checksums=True)
    data, good = path.read_bytes(), forks.read(path, columns=CARRY)
    draw = random.Random(SEED)
    for _ in range(40):
        path.write_bytes(data[: draw.randrange(len(data))])
        tally[said(forks.read(path, columns=CARRY), good, path)] += 1
    assert tally == {"refused by name": 40}


@pytest.mark.hostile
@pytest.mark.parametrize("writer", WRITERS)
def test_with_checksums_no_flipped_bit_gives_another_document(
    forks: Forks, tmp_path: Path, tally: Tally, writer: str
) -> None:
    path = written(tmp_path, writer, checksums=True)
    data, good = path.read_bytes(), forks.read(path, columns=CARRY)
    for damaged in flips(data, 70, SEED):
        path.write_bytes(damaged)
        tally[said(forks.read(path, columns=CARRY), good, path)] += 1
    assert tally["another text"] == 0


@pytest.mark.hostile
@pytest.mark.parametrize("writer", WRITERS)
def test_without_checksums_a_flipped_bit_is_refused_or_is_read_as_it_stands(
    forks: Forks, tmp_path: Path, tally: Tally, writer: str
) -> None:
    """A page without a checksum may hold another valid text after a flip: no reader can know. They are counted."""
    path = written(tmp_path, writer, checksums=False)
    data, good = path.read_bytes(), forks.read(path, columns=CARRY)
    for damaged in flips(data, 30, SEED):
        path.write_bytes(damaged)
        tally[said(forks.read(path, columns=CARRY), good, path)] += 1


@pytest.mark.hostile
def test_a_run_of_a_damaged_file_commits_no_wrong_vector(
    forks: Forks, tmp_path: Path, tally: Tally, tiny_model: Path
) -> None:
    path = written(tmp_path, "zstd", checksums=True)
    data, tables = path.read_bytes(), {"columns": CARRY, "shard": {"rows": 50}, "engine": {"provider": "cpu"}}
    run(make_config(tiny_model, path, tmp_path / "good", **tables), quiet=True)
    good = read_output(tmp_path / "good").select(["id", "text_hash", "number"])
    for number, damaged in enumerate(flips(data, 30, SEED + 1)):
        path.write_bytes(damaged)
        output = tmp_path / f"out-{number}"
        ending = forks.run(make_config(tiny_model, path, output, **tables))
        assert ending.typed, ending.words
        tally[ending.error or "complete"] += 1
        if (output / "_ledger" / "job.json").exists():
            assert verify(output).problems == []
            for entry in read_entries(output):
                first = entry.pieces[0].first_row
                found = read_part(output / entry.file)
                assert found.equals(good.slice(first, found.num_rows))


def read_part(path: Path) -> pa.Table:
    return pq.read_table(path, columns=["id", "text_hash", "number"]).replace_schema_metadata(None)


def test_a_footer_that_contradicts_its_size_statistics_does_not_end_the_process(forks: Forks, tmp_path: Path) -> None:
    """One flipped bit says that the text is never null, which the histograms of its levels deny."""
    path = written(tmp_path, "zstd", checksums=True)
    data, good = path.read_bytes(), forks.read(path, columns=CARRY)
    optional, required = b"\x25\x02\x18\x04text", b"\x25\x00\x18\x04text"
    assert data.count(optional) == 1
    path.write_bytes(data.replace(optional, required))
    ending = forks.read(path, columns=CARRY)
    assert said(ending, good, path) == "refused by name"
    assert "histogram" in ending.words


FLIPS = 5000


@pytest.mark.hostile
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "unfinished"])
def test_every_flipped_bit_of_an_output_is_found(
    tmp_path: Path, tiny_model: Path, tally: Tally, finished: bool
) -> None:
    output = an_output(tmp_path, tiny_model, finished=finished)
    files = [path for path in sorted(output.rglob("*")) if path.is_file() and path.stat().st_size]
    sizes, draw = [path.stat().st_size for path in files], random.Random(SEED + finished)
    assert verify(output).problems == []
    # Each file in turn, and by turns anywhere in all of them.
    for number in range(FLIPS):
        path = files[number // 2 % len(files)] if number % 2 else draw.choices(files, sizes)[0]
        data = path.read_bytes()
        path.write_bytes(flipped(data, draw.randrange(8 * len(data))))
        tally["found" if problems_of(output) else f"missed in {path.name}"] += 1
        path.write_bytes(data)
    assert tally == {"found": FLIPS}


def an_output(folder: Path, model: Path, *, finished: bool) -> Path:
    """All files that an output may have: of a run that ended, or of one that died twice in its last shard."""
    rows = [{**row, "number": number} for number, row in enumerate(make_rows(25))]
    rows[3]["text"] = None
    source, output = write_jsonl(folder / "a.jsonl", rows), folder / "out"
    tables = {"shard": {"rows": 10}, "columns": CARRY, "rows": {"max_quarantined": 1}}
    run(make_config(model, source, output, **tables), quiet=True)
    lost = ["_manifest.json", "_report.html", *([] if finished else ["part-00002.parquet", "_ledger/00002.json"])]
    for name in lost:
        (output / name).unlink()
    with Ledger(output) as ledger:
        ledger.write_tuning(TUNING)
        ledger.set_aside([SetAside(file=0, row=24, reason="it ended the process")])
        if not finished:
            with suppress(MemoryError), ledger.attempt(ledger.pending()[0]):
                raise MemoryError
    if finished:
        run(make_config(model, source, output, **tables), quiet=True)
    return output


def problems_of(output: Path) -> list[str]:
    try:
        return verify(output).problems
    except Corrupt as error:
        return [str(error)]
