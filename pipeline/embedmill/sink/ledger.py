"""Owning an output folder: lock, commit, clean-up, completion."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
from filelock import FileLock, Timeout

from embedmill.base.errors import Corrupt, FingerprintMismatch, Locked, OutputError
from embedmill.base.files import local
from embedmill.base.records import Entry, Rejected, SetAside, Shard
from embedmill.base.results import Manifest, Tuning
from embedmill.sink.fingerprint import first_difference
from embedmill.sink.folder import (
    ATTEMPT,
    JOB,
    LEDGER,
    LOCK,
    MANIFEST,
    QUARANTINE,
    REPORT,
    SCRATCH,
    SET_ASIDE,
    TUNING,
    OutputJob,
    check_conservation,
    check_folder,
    quarantine_path,
    read_entries,
    read_job,
)

_KEPT = "everything committed"


class Ledger:
    """Locked output folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        """Touch nothing before the block is entered."""
        self.folder = folder
        self.job: OutputJob | None = None
        self.entries: dict[int, Entry] = {}
        # Without a fallback to a lock file that a killed run would leave behind for ever.
        self._lock = FileLock(folder / LOCK, thread_local=False, fallback_to_soft=False)

    def __enter__(self) -> Self:
        """Lock and read the folder. Raises OutputError, Locked or Corrupt."""
        check_folder(self.folder)
        local.make_folder(self.folder, kept=_KEPT)
        self._acquire()
        try:
            for name in (LEDGER, SCRATCH):
                local.make_folder(self.folder / name, kept=_KEPT)
            # A killed run may have published an entry without syncing the name; later shards build on it.
            local.sync_names(self.folder / LEDGER, kept=_KEPT)
            self.job = read_job(self.folder)
            self.entries = {entry.ordinal: entry for entry in read_entries(self.folder)}
            self._check_committed()
            self._clean()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (LEDGER, SCRATCH, QUARANTINE):
            # rmdir fails on a folder with files, which stays.
            with contextlib.suppress(OSError):
                (self.folder / name).rmdir()
        self._lock.release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise Locked(f"another run is writing to {self.folder}; wait for it or choose another --output") from error
        except OSError as error:
            raise OutputError(f"{self.folder / LOCK} cannot be locked: {error.strerror or error}") from error

    def begin(self, job: OutputJob) -> None:
        """Record the job of this folder. Raises OutputError."""
        self._write(self.folder / LEDGER / JOB, msgspec.json.encode(job))
        self.job = job

    def check_fingerprint(self, fingerprint: dict[str, Any]) -> None:
        """Raise FingerprintMismatch if the folder belongs to another job."""
        if self.job is None:
            return
        if (difference := first_difference(self.job.fingerprint, fingerprint)) is not None:
            field, description = difference
            raise FingerprintMismatch(
                f"{self.folder} holds the output of another job: {description}; choose another --output, or remove it",
                field=field,
            )

    @property
    def planned_rows(self) -> int:
        """Return the rows of the plan; 0 before the job."""
        return sum(shard.rows for shard in self.job.shards) if self.job is not None else 0

    def pending(self) -> list[Shard]:
        """Return the shards not committed yet, in order."""
        shards = self.job.shards if self.job is not None else []
        return [shard for shard in shards if shard.ordinal not in self.entries]

    @contextmanager
    def attempt(self, shard: Shard) -> Iterator[None]:
        """Note an attempt at a shard until the end."""
        # Neither synced nor needed: it tells the next run of the death of this process, not of the machine's.
        note, died = self.folder / LEDGER / ATTEMPT, False
        _write_note(note, str(shard.ordinal))
        try:
            yield
        except MemoryError:
            died = True
            raise
        finally:
            if not died:
                _write_note(note, "")

    def set_aside(self, rows: list[SetAside]) -> None:
        """Record rows that ended a process. Raises OutputError."""
        self._write(self.folder / LEDGER / SET_ASIDE, msgspec.json.format(msgspec.json.encode(rows)))

    def died_at(self) -> Shard | None:
        """Return the pending shard that the last process died preparing."""
        try:
            ordinal = int((self.folder / LEDGER / ATTEMPT).read_text("ascii"))
        except (OSError, ValueError):
            return None
        return next((shard for shard in self.pending() if shard.ordinal == ordinal), None)

    def commit(self, entry: Entry, data: memoryview, rejected: Iterable[Rejected]) -> Entry:
        """Commit a shard; return the entry. Raises ConservationError or OutputError."""
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
            # The files are another run's: not ours to remove.
            raise
        except BaseException:
            self._roll_back(entry, place)
            raise
        self.entries[entry.ordinal] = entry
        return entry

    def _publish(self, entry: Entry, data: memoryview, lines: bytes, place: Path) -> None:
        # The entry last, and never overwritten: a shard is committed by its name appearing in the ledger.
        if lines:
            local.make_folder(self.folder / QUARANTINE, kept=_KEPT)
            self._write(quarantine_path(self.folder, entry), lines)
        local.publish_file(self.folder / entry.file, data, scratch=self.folder / SCRATCH, kept=_KEPT)
        local.publish_file(place, msgspec.json.encode(entry), scratch=self.folder / SCRATCH, kept=_KEPT)

    def _roll_back(self, entry: Entry, place: Path) -> None:
        """Remove what was written of a shard without an entry."""
        if place.exists():
            return
        # The next run removes whatever cannot be removed now.
        for path in (self.folder / entry.file, quarantine_path(self.folder, entry)):
            with contextlib.suppress(OutputError):
                local.remove(path, kept=_KEPT)

    def complete(self, manifest: Manifest, report: str) -> None:
        """Write report and manifest. Raises OutputError."""
        local.remove(self.folder / LEDGER / ATTEMPT, kept=_KEPT)
        # The manifest last: a folder that has one is complete.
        self.write_report(report)
        self._write(self.folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))

    def write_report(self, page: str) -> Path:
        """Write the HTML report; return the path. Raises OutputError."""
        self._write(self.folder / REPORT, page.encode())
        return self.folder / REPORT

    def write_tuning(self, tuning: Tuning) -> None:
        """Write the tuning record of this run. Raises OutputError."""
        self._write(self.folder / TUNING, msgspec.json.format(msgspec.json.encode(tuning)))

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        local.write_file(path, data, scratch=self.folder / SCRATCH, kept=_KEPT)

    def _check_committed(self) -> None:
        for entry in self.entries.values():
            path = self.folder / entry.file
            if not path.is_file() or path.stat().st_size != entry.bytes:
                raise Corrupt(
                    f"{path} is committed but missing or of another size; restore it, or remove"
                    f" {self.folder / LEDGER / f'{entry.ordinal:05d}.json'} and {MANIFEST} to embed its rows again"
                )

    def _clean(self) -> None:
        """Remove temporary files and uncommitted shards of killed runs."""
        entries = self.entries.values()
        committed = {self.folder / entry.file for entry in entries}
        committed |= {quarantine_path(self.folder, entry) for entry in entries if entry.quarantine_sha256}
        parts = [*self.folder.glob("part-*.parquet"), *(self.folder / QUARANTINE).glob("part-*.jsonl")]
        for path in [*(self.folder / SCRATCH).iterdir(), *parts]:
            if path not in committed:
                local.remove(path, kept=_KEPT)


def _write_note(path: Path, text: str) -> None:
    with contextlib.suppress(OSError):
        path.write_text(text, "ascii")
