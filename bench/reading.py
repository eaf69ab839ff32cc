"""Rows per second that each format is read with: python -m bench.reading [ROWS]."""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.base.configfile import parse_config
from embedmill.source import Reader, discover, resolve
from embedmill.source.plan import plan

WORDS = 5000
WORDS_PER_TEXT = 60


def main(rows: int) -> None:
    """Write a corpus in each format, read it twice, and print the faster pass."""
    with tempfile.TemporaryDirectory() as folder:
        write_corpora(Path(folder), rows)
        for path in sorted(Path(folder).iterdir()):
            seconds = min(reading_s(path), reading_s(path))
            print(f"{path.name}\t{rows / seconds:.0f} rows/s", flush=True)


def write_corpora(folder: Path, rows: int) -> None:
    """Write the same documents as JSONL, JSON array, CSV, TSV, Parquet and packed JSONL."""
    chance = random.Random(0)
    words = ["".join(chance.choices("abcdefghij", k=chance.randint(2, 9))) for _ in range(WORDS)]
    table = {
        "id": list(range(rows)),
        "text": [" ".join(chance.choices(words, k=WORDS_PER_TEXT)) for _ in range(rows)],
        "kind": chance.choices(["a", "b", "c"], k=rows),
    }
    pq.write_table(pa.table(table), folder / "a.parquet")
    documents = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    lines = "".join(json.dumps(document) + "\n" for document in documents)
    (folder / "a.jsonl").write_text(lines)
    for ending, codec in ((".gz", "gzip"), (".zst", "zstd")):
        with pa.output_stream(folder / f"a.jsonl{ending}", compression=codec) as out:
            out.write(lines.encode())
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        with (folder / f"a{ending}").open("w", newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([list(table), *zip(*table.values(), strict=True)])


def reading_s(path: Path) -> float:
    """Time survey and reading of all shards, in seconds."""
    config = parse_config({"input": {"paths": [str(path)]}, "columns": {"carry": ["kind"]}}, place="bench")
    files = discover(config.input).files
    began = time.perf_counter()
    columns = resolve(files, config)
    with Reader(files, config, columns) as reader:
        for shard in plan(files, config, columns):
            reader.read(shard)
    return time.perf_counter() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
