"""Small output folders, written by the sink alone: no model, no input."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from embedmill.base.files.sealed import digest_in, seal
from embedmill.base.records import Entry, FloatArray, Piece, Rejected, Shard
from embedmill.base.results import Manifest, Stages, Totals
from embedmill.sink.folder import LEDGER, SET_ASIDE, TUNING, OutputJob, shard_files, total
from embedmill.sink.ledger import Ledger
from embedmill.sink.shard import quarantine_lines, shard_bytes, shard_table

DIM = 4
ROWS = 6
IDENTITY = "1d" * 32
FINGERPRINT = {
    "model.identity": IDENTITY,
    "columns.text": "text",
    "shard.rows": ROWS,
    "input.files": {"a.jsonl": "9 bytes, sha256:0"},
}

# Counts of an output with written, quarantined, skipped and truncated rows.
TOTALS = Totals(
    shards=2,
    rows_read=100,
    rows_written=90,
    rows_quarantined=7,
    rows_skipped=3,
    vectors=90,
    tokens=10_000,
    padded_tokens=10_100,
    truncated=9,
    bytes=1 << 20,
)

# A resume may change where the input and the output lie, how the job computes and what it tolerates. The
# model counts by its identity and the input by its files.
FREE = {
    "model",
    "input.paths",
    "output.path",
    "rows.max_quarantined",
    "limits.expansion",
    "limits.carried_bytes",
    "limits.window_log",
    "engine.provider",
    "engine.device",
    "engine.precision",
    "engine.streams",
    "engine.threads",
    "engine.telemetry",
    "engine.budget_tokens",
    "engine.memory_bytes",
    "engine.memory_fraction",
    "engine.timeout_s",
    "engine.tune",
}


def make_job(shards: int = 3) -> OutputJob:
    """A job over one JSONL file, cut into so many shards of six rows."""
    return OutputJob(fingerprint=FINGERPRINT, shards=[make_shard(ordinal) for ordinal in range(shards)])


def make_shard(ordinal: int) -> Shard:
    """Six rows of the one input file."""
    first = ordinal * ROWS
    return Shard(ordinal=ordinal, pieces=(Piece(file=0, first_row=first, rows=ROWS, start=first, stop=first + ROWS),))


def make_entry(ordinal: int, *, quarantined: int = 0, skipped: int = 0, identity: str = IDENTITY) -> Entry:
    """What the ledger is told of a shard: its rows, less those set aside, have one vector each."""
    written = ROWS - quarantined - skipped
    return Entry(
        ordinal=ordinal,
        file=f"part-{ordinal:05d}.parquet",
        pieces=make_shard(ordinal).pieces,
        rows_read=ROWS,
        rows_written=written,
        rows_quarantined=quarantined,
        rows_skipped=skipped,
        vectors=written,
        tokens=5 * written,
        padded_tokens=6 * written,
        truncated=0,
        bytes=0,
        sha256="",
        quarantine_sha256="",
        identity=identity,
    )


def make_vectors(rows: int = ROWS, *, seed: int = 0) -> FloatArray:
    """Vectors of length 1, float32 [rows, DIM]."""
    vectors = np.random.default_rng(seed).normal(size=(rows, DIM))
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def make_part(
    vectors: FloatArray | None = None, *, identity: str = IDENTITY, ordinal: int = 0, lines: bytes = b""
) -> memoryview:
    """The Parquet file of some vectors, of the job of three shards."""
    vectors = make_vectors() if vectors is None else vectors
    rows = len(vectors)
    columns = {
        "id": pa.array([f"row {number}" for number in range(rows)], pa.string()),
        "n_tokens": pa.array([5] * rows, pa.int32()),
        "truncated": pa.array([False] * rows, pa.bool_()),
        "text_hash": pa.array(["5e" * 32] * rows, pa.string()),
    }
    metadata = {"identity": identity, "job": seal(make_job())[0].digest, "shard": str(ordinal)}
    metadata |= {"quarantine": hashlib.sha256(lines).hexdigest() if lines else ""}
    metadata |= {"dim": str(DIM), "normalized": "true"}
    return shard_bytes(shard_table(columns, vectors, pa.table({})), metadata=metadata, compression="zstd")


def make_rejected(count: int = 1) -> list[Rejected]:
    """Rows set aside."""
    return [
        Rejected(file="a.jsonl", row=row + 1, reason="the text is empty", id=None, excerpt="") for row in range(count)
    ]


def make_lines(count: int = 1) -> bytes:
    """The quarantine file of rows set aside."""
    return quarantine_lines(make_rejected(count))


def write_output(folder: Path, *, shards: int = 3, committed: int | None = None, begun: bool = False) -> Path:
    """An output of so many shards, the last of which quarantined a row; complete unless fewer are committed."""
    with Ledger(folder) as ledger:
        job = make_job(shards)
        if not begun:
            ledger.begin(job)
        for shard in job.shards[:committed]:
            last = shard.ordinal == shards - 1
            vectors = make_vectors(ROWS - last, seed=shard.ordinal)
            ledger.commit(make_entry(shard.ordinal, quarantined=int(last)), make_part(vectors), make_lines(last))
        if not ledger.pending():
            ledger.complete(make_manifest(ledger), "<!doctype html>")
    return folder


def make_manifest(ledger: Ledger) -> Manifest:
    """The manifest of what a ledger holds."""
    assert ledger.job is not None
    return Manifest(
        version="0",
        identity=IDENTITY,
        job=ledger.job.digest,
        tuning=digest_in(ledger.folder / TUNING),
        set_aside=digest_in(ledger.folder / LEDGER / SET_ASIDE),
        model={"name": "none", "dim": DIM},
        fingerprint=FINGERPRINT,
        totals=total(ledger.entries.values()),
        shards=shard_files(ledger.entries.values()),
        environment={},
        stages=Stages(),
    )


def names(folder: Path) -> list[str]:
    """Every file below a folder, by its path there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
