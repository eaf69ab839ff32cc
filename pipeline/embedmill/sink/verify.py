"""Verification of an output folder against the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from embedmill.base.errors import ConservationError, OutputError
from embedmill.base.files.digest import sha256_of
from embedmill.base.records import NORM_TOLERANCE, Entry
from embedmill.base.results import Manifest, Totals
from embedmill.base.signals import checkpoint
from embedmill.sink.folder import (
    OutputJob,
    check_conservation,
    quarantine_path,
    read_entries,
    read_job,
    read_manifest,
    shard_files,
    total,
)
from embedmill.sink.shard import VECTOR


class VerifyResult(Struct, frozen=True, kw_only=True):
    """Result of a verification; a sound output has no `problems`."""

    complete: bool
    shards_planned: int
    totals: Totals
    problems: list[str]


def verify(folder: Path) -> VerifyResult:
    """Check shards and manifest, unlocked. Raises OutputError or Corrupt."""
    job = read_job(folder)
    if job is None:
        raise OutputError(f"{folder} is not an embedmill output (it has no _ledger/job.json)")
    entries = list(read_entries(folder))
    manifest = read_manifest(folder)
    problems = [problem for entry in entries for problem in _shard_problems(folder, job, entry)]
    problems += _uncommitted_parts(folder, entries)
    if manifest is not None:
        problems += _manifest_problems(manifest, job, entries)
    return VerifyResult(
        complete=manifest is not None, shards_planned=len(job.shards), totals=total(entries), problems=problems
    )


def _shard_problems(folder: Path, job: OutputJob, entry: Entry) -> Iterator[str]:
    checkpoint()
    planned = job.shards[entry.ordinal] if entry.ordinal < len(job.shards) else None
    if planned is None or planned.pieces != entry.pieces:
        yield f"{entry.file}: its ledger entry covers other rows than the plan"
    else:
        try:
            check_conservation(entry, planned=planned.rows)
        except ConservationError as error:
            yield f"{entry.file}: {error}"
    if entry.identity != job.fingerprint.get("model.identity"):
        yield f"{entry.file}: made by another model ({entry.identity[:12]}) than the rest"
    if entry.quarantine_sha256:
        yield from _file_problems(quarantine_path(folder, entry), entry.quarantine_sha256)
    # A file of another checksum has no content worth checking.
    damage = list(_file_problems(folder / entry.file, entry.sha256))
    yield from damage or _table_problems(folder / entry.file, entry)


def _file_problems(path: Path, recorded: str) -> Iterator[str]:
    if not path.is_file():
        yield f"{path.name}: committed, but missing"
    elif sha256_of([path]) != recorded:
        yield f"{path.name}: its sha256 is not the one in the ledger"


def _table_problems(path: Path, entry: Entry) -> Iterator[str]:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        yield f"{path.name}: cannot be read ({str(error).splitlines()[0]})"
        return
    footer = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    if table.num_rows != entry.vectors:
        yield f"{path.name}: {table.num_rows} rows, but {entry.vectors} in the ledger"
    if footer.get("embed.identity") != entry.identity:
        yield f"{path.name}: its footer names another model than the ledger"
    yield from _vector_problems(path.name, table.column(VECTOR), footer)


def _vector_problems(name: str, column: Any, footer: dict[str, str]) -> Iterator[str]:
    if str(column.type.list_size) != footer.get("embed.dim"):
        yield f"{name}: vectors of {column.type.list_size} dimensions, but {footer.get('embed.dim')} in the footer"
        return
    vectors = column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    if not np.isfinite(vectors).all():
        yield f"{name}: a vector is not finite"
    elif footer.get("embed.normalized") == "true":
        worst = float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0))
        if worst > NORM_TOLERANCE:
            yield f"{name}: a vector's length differs from 1 by {worst:.3g}"


def _uncommitted_parts(folder: Path, entries: list[Entry]) -> Iterator[str]:
    committed = {entry.file for entry in entries}
    for path in sorted(folder.glob("part-*.parquet")):
        if path.name not in committed:
            yield f"{path.name}: not in the ledger (left by a killed run; the next run removes it)"


def _manifest_problems(manifest: Manifest, job: OutputJob, entries: list[Entry]) -> Iterator[str]:
    if len(entries) != len(job.shards):
        yield f"the manifest says complete, but {len(entries)} of {len(job.shards)} shards are committed"
    if manifest.totals != total(entries) or manifest.shards != shard_files(entries):
        yield "the manifest's totals or files are not those of the ledger"
    if manifest.fingerprint != job.fingerprint or manifest.identity != job.fingerprint.get("model.identity"):
        yield "the manifest's identity or fingerprint is not that of the ledger"
