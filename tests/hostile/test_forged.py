"""Outputs that somebody forged with all digests right: bounded memory, and a sentence."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.jobs.run import run
from tests.support.jobs import make_config, make_rows, words_of, write_jsonl

pytestmark = [
    pytest.mark.hostile,
    pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process"),
]

# What a record may have is 1 GiB.
MOST_BYTES = 5 << 29
REPEATED = pa.array(["x" * (16 << 20)])


def reseal(path: Path, **changes: Any) -> None:
    record = json.loads(path.read_bytes()) | changes
    del record["digest"]
    blank = json.dumps({"digest": "", **record}).encode()
    path.write_bytes(blank.replace(b'""', f'"{hashlib.sha256(blank).hexdigest()}"'.encode(), 1))


def forge(output: Path, column: str) -> None:
    """Make the first part 1,000 rows that repeat a text of 16 MiB, in a few KB."""
    part = output / "part-00000.parquet"
    table = pq.read_table(part)
    rows = table.take(pa.array(np.zeros(1000, np.int64)))
    repeated = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1000, np.int32)), REPEATED)
    rows = rows.set_column(0, "id", repeated) if column == "id" else rows.append_column(column, repeated)
    pq.write_table(
        rows.replace_schema_metadata(table.schema.metadata),
        part,
        compression="zstd",
        dictionary_pagesize_limit=64 << 20,
        write_page_checksum=True,
        store_schema=False,
    )
    data = part.read_bytes()
    assert len(data) < 1 << 16
    reseal(output / "_ledger" / "00000.json", bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), vectors=1000)
    (output / "_manifest.json").unlink()
    (output / "_ledger" / "00001.json").unlink()
    (output / "part-00001.parquet").unlink()


def bounded(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that may take 2.5 GiB of data."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))

    command = [sys.executable, "-m", "embedmill", *words]
    return subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("column", ["id", "carried"])
def test_a_part_that_repeats_a_text_without_end_takes_no_memory(tmp_path: Path, tiny_model: Path, column: str) -> None:
    config = make_config(
        tiny_model, write_jsonl(tmp_path / "a.jsonl", make_rows(20)), tmp_path / "out", shard={"rows": 10}
    )
    run(config, quiet=True)
    forge(tmp_path / "out", column)
    verified = bounded("verify", str(tmp_path / "out"))
    assert "memory" not in verified.stderr
    assert verified.returncode in (0, 6), verified.stderr
    resumed = bounded(*words_of(config))
    assert "memory" not in resumed.stderr
    if column == "id":
        assert resumed.returncode == 6
        assert "part-00000.parquet has an id of more than `limits.id_bytes`" in resumed.stderr


@pytest.mark.parametrize("name", ["_report.html", "_manifest.json", "_tuning.json", "_ledger/job.json"])
@pytest.mark.parametrize("size", [1 << 29, 1 << 31, 1 << 40])
def test_a_sparse_record_takes_no_memory(tmp_path: Path, tiny_model: Path, name: str, size: int) -> None:
    config = make_config(tiny_model, write_jsonl(tmp_path / "a.jsonl", make_rows(20)), tmp_path / "out")
    run(config, quiet=True)
    os.truncate(tmp_path / "out" / name, size) if (tmp_path / "out" / name).exists() else (
        tmp_path / "out" / name
    ).write_bytes(b"")
    done = bounded("verify", str(tmp_path / "out"))
    assert done.returncode == 6, done.stderr
    assert "memory" not in done.stderr
    assert "Traceback" not in done.stderr
