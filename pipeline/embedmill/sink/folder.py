"""Reading an output folder: job, entries, manifest, quarantine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from embedmill.base.errors import ConservationError, Corrupt, OutputError
from embedmill.base.records import Entry, InputFile, Rejected, SetAside, Shard
from embedmill.base.results import Manifest, ShardFile, Totals, Tuning
from embedmill.base.signals import checkpoint

T = TypeVar("T")
MANIFEST = "_manifest.json"
REPORT = "_report.html"
TUNING = "_tuning.json"
LEDGER = "_ledger"
QUARANTINE = "quarantine"
LOCK = "_run.lock"
SCRATCH = "_tmp"
JOB = "job.json"
# In the ledger: the shard that is being read and tokenised.
ATTEMPT = "attempt"
SET_ASIDE = "set-aside.json"
# Everything that embedmill may leave in a folder before its first job is recorded.
_OWN_NAMES = frozenset({MANIFEST, LEDGER, QUARANTINE, LOCK, SCRATCH, REPORT, TUNING})


class OutputJob(Struct, frozen=True, kw_only=True):
    """`_ledger/job.json`, written before the first shard."""

    fingerprint: dict[str, Any]
    files: list[InputFile]
    shards: list[Shard]


def check_folder(folder: Path) -> None:
    """Raise OutputError for a file or a foreign folder."""
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; --output must name a folder")
        if not folder.is_dir() or (folder / LEDGER / JOB).is_file():
            return
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in _OWN_NAMES)
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror}; choose another --output") from error
    if foreign:
        raise OutputError(
            f"{folder} is not an embedmill output (it holds {foreign[0]!r}); choose an empty or new --output"
        )


def read_job(folder: Path) -> OutputJob | None:
    """Read the job; None before the first run. Raises Corrupt."""
    return _decode(folder / LEDGER / JOB, OutputJob)


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest; None while incomplete. Raises Corrupt."""
    return _decode(folder / MANIFEST, Manifest)


def read_tuning(folder: Path) -> Tuning | None:
    """Read the tuning record; None if absent or unreadable."""
    # Shown in the report only: a record of another version is no reason to refuse the output.
    try:
        return _decode(folder / TUNING, Tuning)
    except Corrupt:
        return None


def read_set_aside(folder: Path) -> list[SetAside]:
    """Read the rows that ended a process. Raises Corrupt."""
    return _decode(folder / LEDGER / SET_ASIDE, list[SetAside]) or []


def read_entries(folder: Path) -> Iterator[Entry]:
    """Read the entries of committed shards, in order. Raises Corrupt."""
    # By number, because names of more than five digits do not sort as text.
    for path in sorted((folder / LEDGER).glob("[0-9]*.json"), key=lambda path: int(path.stem)):
        checkpoint()
        if (entry := _decode(path, Entry)) is not None:
            yield entry


def read_rejected(folder: Path, entries: Iterable[Entry]) -> Iterator[Rejected]:
    """Read the quarantined rows of shards, in order. Raises Corrupt."""
    for entry in entries:
        if not entry.quarantine_sha256:
            continue
        path = quarantine_path(folder, entry)
        try:
            yield from (msgspec.json.decode(line, type=Rejected) for line in path.read_bytes().splitlines())
        except (OSError, msgspec.DecodeError) as error:
            raise Corrupt(f"{path} cannot be read ({error}); run `embedmill verify {folder}`") from error


def quarantine_path(folder: Path, entry: Entry) -> Path:
    """Return the path of the quarantine of a shard."""
    return folder / QUARANTINE / f"{Path(entry.file).stem}.jsonl"


def total(entries: Iterable[Entry]) -> Totals:
    """Sum the counts of entries."""
    totals = Totals()
    for entry in entries:
        totals.shards += 1
        for field in Totals.__struct_fields__[1:]:
            setattr(totals, field, getattr(totals, field) + getattr(entry, field))
    return totals


def shard_files(entries: Iterable[Entry]) -> list[ShardFile]:
    """List output files for the manifest."""
    return [ShardFile(file=entry.file, rows=entry.vectors, bytes=entry.bytes, sha256=entry.sha256) for entry in entries]


def check_conservation(counts: Entry | Totals, *, planned: int) -> None:
    """Raise ConservationError unless planned, read and accounted rows agree."""
    accounted = counts.rows_written + counts.rows_quarantined + counts.rows_skipped
    if not planned == counts.rows_read == accounted:
        raise ConservationError(
            f"{planned} rows were planned, {counts.rows_read} read and {accounted} accounted for"
            f" ({counts.rows_written} written, {counts.rows_quarantined} quarantined, {counts.rows_skipped} skipped);"
            " this is a defect of embedmill: please report it"
        )


def _decode(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); restore it, or start again in a new --output") from error
