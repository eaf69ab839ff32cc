"""The output folder: who owns it, what is committed in it, and when it is complete."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import msgspec
from filelock import FileLock, Timeout

from embedmill.base.errors import Corrupt, FingerprintMismatch, Locked, OutputError
from embedmill.base.files import local
from embedmill.base.records import Entry, Rejected, Shard
from embedmill.base.results import Manifest, Tuning
from embedmill.sink.fingerprint import first_difference
from embedmill.sink.folder import (
    JOB,
    LEDGER,
    LOCK,
    MANIFEST,
    QUARANTINE,
    REPORT,
    SCRATCH,
    TUNING,
    OutputJob,
    check_conservation,
    check_ours,
    quarantine_path,
    read_entries,
    read_job,
)


class Ledger:
    """A locked output folder; a context manager.

    A shard is visible once its entry is in the ledger, and an entry is never overwritten.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is touched before the block is entered."""
        self.folder = folder
        self.job: OutputJob | None = None
        self.entries: dict[int, Entry] = {}
        self._lock = FileLock(folder / LOCK, thread_local=False, fallback_to_soft=False)

    def __enter__(self) -> Self:
        """Take the folder and read what is committed.

        Raises OutputError if it holds something else, Locked if another run owns it, Corrupt if a
        committed file is missing.
        """
        check_ours(self.folder)
        local.make_folder(self.folder)
        self._acquire()
        try:
            for name in (LEDGER, SCRATCH):
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
        self._remove_empty(LEDGER, SCRATCH, QUARANTINE)
        self._lock.release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise Locked(f"another run is writing to {self.folder}; wait for it or choose another --output") from error
        except OSError as error:
            raise OutputError(f"{self.folder / LOCK} cannot be locked: {error.strerror or error}") from error

    def begin(self, job: OutputJob) -> None:
        """Record what this folder is for. Raises OutputError if that cannot be written."""
        self._write(self.folder / LEDGER / JOB, msgspec.json.encode(job))
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

    @property
    def planned_rows(self) -> int:
        """Rows of all shards of the plan; 0 before the job has begun."""
        return sum(shard.rows for shard in self.job.shards) if self.job is not None else 0

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
        local.publish_file(self.folder / entry.file, data, scratch=self.folder / SCRATCH)
        local.publish_file(place, msgspec.json.encode(entry), scratch=self.folder / SCRATCH)

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
        local.write_file(path, data, scratch=self.folder / SCRATCH)

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
        for path in (self.folder / SCRATCH).iterdir():
            local.remove(path)
        committed = {entry.file for entry in self.entries.values()}
        noted = {quarantine_path(self.folder, entry) for entry in self.entries.values() if entry.quarantine_sha256}
        for path in self.folder.glob("part-*.parquet"):
            if path.name not in committed:
                local.remove(path)
        for path in (self.folder / QUARANTINE).glob("part-*.jsonl"):
            if path not in noted:
                local.remove(path)
