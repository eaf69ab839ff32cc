"""The output folder: who owns it, what is committed in it, and when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from filelock import FileLock, Timeout
from msgspec import Struct

from embedmill.base.errors import ConservationError, Corrupt, FingerprintMismatch, Locked, OutputError
from embedmill.base.files import local
from embedmill.base.records import Entry, InputFile, Rejected, Shard, ShardFile, Totals
from embedmill.base.results import Manifest, Tuning
from embedmill.sink.fingerprint import first_difference

T = TypeVar("T")

MANIFEST = "_manifest.json"
REPORT = "_report.html"
TUNING = "_tuning.json"
LEDGER = "_ledger"
QUARANTINE = "quarantine"
_LOCK = "_run.lock"
_SCRATCH = "_tmp"
_JOB = "job.json"
_OURS = frozenset({MANIFEST, LEDGER, QUARANTINE, _LOCK, _SCRATCH, REPORT, TUNING})


class Job(Struct, frozen=True, kw_only=True):
    """`_ledger/job.json`: what the folder holds the output of, written before the first shard."""

    fingerprint: dict[str, Any]
    files: list[InputFile]
    shards: list[Shard]


class Ledger:
    """A locked output folder; a context manager.

    A shard is visible once its entry is in the ledger, and an entry is never overwritten.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is touched before the block is entered."""
        self.folder = folder
        self.job: Job | None = None
        self.entries: dict[int, Entry] = {}
        self._lock = FileLock(folder / _LOCK, thread_local=False, fallback_to_soft=False)

    def __enter__(self) -> Self:
        """Take the folder and read what is committed.

        Raises OutputError if it holds something else, Locked if another run owns it, Corrupt if a
        committed file is missing.
        """
        check_ours(self.folder)
        local.make_folder(self.folder)
        self._acquire()
        try:
            for name in (LEDGER, _SCRATCH):
                local.make_folder(self.folder / name)
            # A run that was killed may have published an entry and not synced its name: what is built on is safe first.
            local.sync_names(self.folder / LEDGER)
            self.job = read_job(self.folder)
            self.entries = {entry.ordinal: entry for entry in read_entries(self.folder)}
            self._check_committed()
            self._clean()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove_empty(LEDGER, _SCRATCH, QUARANTINE)
        self._lock.release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise Locked(f"another run is writing to {self.folder}; wait for it or choose another --output") from error
        except OSError as error:
            raise OutputError(f"{self.folder / _LOCK} cannot be locked: {error.strerror or error}") from error

    def begin(self, job: Job) -> None:
        """Record what this folder is for. Raises OutputError if that cannot be written."""
        self._write(self.folder / LEDGER / _JOB, msgspec.json.encode(job))
        self.job = job

    def check_fingerprint(self, fingerprint: dict[str, Any]) -> None:
        """Raises FingerprintMismatch, naming the field, if the folder holds another job's output."""
        if self.job is None:
            return
        difference = first_difference(self.job.fingerprint, msgspec.json.decode(msgspec.json.encode(fingerprint)))
        if difference is not None:
            field, words = difference
            raise FingerprintMismatch(
                f"{self.folder} holds the output of another job: {words}; choose another --output, or remove it",
                field=field,
            )

    def pending(self) -> list[Shard]:
        """The shards that are not committed yet, in order."""
        shards = self.job.shards if self.job is not None else []
        return [shard for shard in shards if shard.ordinal not in self.entries]

    def commit(self, entry: Entry, data: memoryview, rejected: Iterable[Rejected]) -> Entry:
        """Write a shard and its quarantine, then make them visible; the entry with their sizes and hashes.

        Raises ConservationError if a row is unaccounted for, OutputError if something cannot be
        written; the shard is then not committed, and what was written of it is gone.
        """
        check_conservation(entry, planned=sum(piece.rows for piece in entry.pieces))
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rejected)
        entry = msgspec.structs.replace(
            entry,
            bytes=data.nbytes,
            sha256=hashlib.sha256(data).hexdigest(),
            quarantine_sha256=hashlib.sha256(lines).hexdigest() if lines else "",
        )
        place = self.folder / LEDGER / f"{entry.ordinal:05d}.json"
        try:
            self._publish(entry, data, lines, place)
        except Corrupt:
            raise
        except BaseException:
            self._take_back(entry, place)
            raise
        self.entries[entry.ordinal] = entry
        return entry

    def _publish(self, entry: Entry, data: memoryview, lines: bytes, place: Path) -> None:
        """The quarantine, the part, and then the entry that names them."""
        if lines:
            local.make_folder(self.folder / QUARANTINE)
            self._write(quarantine_path(self.folder, entry), lines)
        local.publish_file(self.folder / entry.file, data, scratch=self.folder / _SCRATCH)
        local.publish_file(place, msgspec.json.encode(entry), scratch=self.folder / _SCRATCH)

    def _take_back(self, entry: Entry, place: Path) -> None:
        """A stop or an error came between a part and its entry: leave no part that no entry names. What cannot be
        removed now, the next run removes."""
        if place.exists():
            return
        for path in (self.folder / entry.file, quarantine_path(self.folder, entry)):
            with contextlib.suppress(OutputError):
                local.remove(path)

    def complete(self, manifest: Manifest, report: str) -> None:
        """Write the report, then the manifest: the run is complete. Raises OutputError if that fails."""
        self.write_report(report)
        self._write(self.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))

    def write_report(self, page: str) -> Path:
        """Put the HTML report into the folder; where it is. Raises OutputError."""
        self._write(self.folder / REPORT, page.encode())
        return self.folder / REPORT

    def write_tuning(self, tuning: Tuning) -> None:
        """Put beside the shards what their batches rest on. Raises OutputError."""
        self._write(self.folder / TUNING, msgspec.json.format(msgspec.json.encode(tuning)))

    def _remove_empty(self, *names: str) -> None:
        """Leave no empty folders behind."""
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).rmdir()

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        local.write_file(path, data, scratch=self.folder / _SCRATCH)

    def _check_committed(self) -> None:
        for entry in self.entries.values():
            path = self.folder / entry.file
            if not path.is_file() or path.stat().st_size != entry.bytes:
                raise Corrupt(
                    f"{path} is committed but missing or of another size; restore it, or remove"
                    f" {self.folder / LEDGER / f'{entry.ordinal:05d}.json'} and {MANIFEST} to embed its rows again"
                )

    def _clean(self) -> None:
        """Remove what a killed run left: temporary files, and shards that never reached the ledger."""
        for path in (self.folder / _SCRATCH).iterdir():
            local.remove(path)
        committed = {entry.file for entry in self.entries.values()}
        noted = {quarantine_path(self.folder, entry) for entry in self.entries.values() if entry.quarantine_sha256}
        for path in self.folder.glob("part-*.parquet"):
            if path.name not in committed:
                local.remove(path)
        for path in (self.folder / QUARANTINE).glob("part-*.jsonl"):
            if path not in noted:
                local.remove(path)


def check_ours(folder: Path) -> None:
    """Raises OutputError if `folder` is a file, or holds things that embedmill did not write."""
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; --output must name a folder")
        if not folder.is_dir() or (folder / LEDGER / _JOB).is_file():
            return
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in _OURS)
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror}; choose another --output") from error
    if foreign:
        raise OutputError(
            f"{folder} is not an embedmill output (it holds {foreign[0]!r}); choose an empty or new --output"
        )


def read_job(folder: Path) -> Job | None:
    """What the folder holds the output of; None before the first run. Raises Corrupt if unreadable."""
    return _decode(folder / LEDGER / _JOB, Job)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest; None while the output is not complete. Raises Corrupt if unreadable."""
    return _decode(folder / MANIFEST, Manifest)


def read_tuning(folder: Path) -> Tuning | None:
    """What `_tuning.json` says; None where there is none, or none that this version reads."""
    try:
        return _decode(folder / TUNING, Tuning)
    except Corrupt:
        return None


def read_entries(folder: Path) -> Iterator[Entry]:
    """The committed shards, in order. Raises Corrupt if an entry is unreadable."""
    for path in sorted((folder / LEDGER).glob("[0-9]*.json"), key=lambda path: int(path.stem)):
        entry = _decode(path, Entry)
        if entry is not None:
            yield entry


def read_rejected(folder: Path, entries: Iterable[Entry]) -> Iterator[Rejected]:
    """The quarantined rows of committed shards, in order. Raises Corrupt if a file is unreadable."""
    for entry in entries:
        if not entry.quarantine_sha256:
            continue
        path = quarantine_path(folder, entry)
        try:
            yield from (msgspec.json.decode(line, type=Rejected) for line in path.read_bytes().splitlines())
        except (OSError, msgspec.DecodeError) as error:
            raise Corrupt(f"{path} cannot be read ({error}); run `embedmill verify {folder}`") from error


def quarantine_path(folder: Path, entry: Entry) -> Path:
    """Where the rejected rows of a shard are listed."""
    return folder / QUARANTINE / f"{Path(entry.file).stem}.jsonl"


def total(entries: Iterable[Entry]) -> Totals:
    """Sums over entries."""
    totals = Totals()
    for entry in entries:
        totals.shards += 1
        for field in Totals.__struct_fields__[1:]:
            setattr(totals, field, getattr(totals, field) + getattr(entry, field))
    return totals


def shard_files(entries: Iterable[Entry]) -> list[ShardFile]:
    """The output files, as the manifest lists them."""
    return [ShardFile(file=entry.file, rows=entry.vectors, bytes=entry.bytes, sha256=entry.sha256) for entry in entries]


def check_conservation(counts: Entry | Totals, *, planned: int) -> None:
    """Raises ConservationError unless planned = read = written + quarantined + skipped."""
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
