"""Owning an output folder: lock, commit, clean-up, completion."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
from filelock import FileLock, Timeout

from embedmill.base.errors import Corrupt, FingerprintMismatch, Locked, OutputError, TokenizerFailed
from embedmill.base.files import local
from embedmill.base.files.sealed import Record, seal, seal_page
from embedmill.base.records import Entry, SetAside, Shard
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
    Attempt,
    OutputJob,
    SetAsideRows,
    check_conservation,
    check_folder,
    check_own_files,
    check_own_folders,
    entry_problem,
    followed,
    quarantine_path,
    read_attempt,
    read_entries,
    read_job,
    read_manifest,
)
from embedmill.sink.leftovers import name_foreign, remove_leftovers

_KEPT = "everything committed"
# `embedmill verify` holds the lock for an instant.
_LOCK_S = 0.2
# Of the folder, what two runs or two outputs must not exchange.
_HELD = (".", LEDGER, SCRATCH, QUARANTINE, LOCK)


class Ledger:
    """Locked output folder; a context manager."""

    def __init__(self, folder: Path, *, writes_shards: bool = True) -> None:
        """Touch nothing before the block is entered."""
        self.folder = folder
        self._writes_shards = writes_shards
        self.job: OutputJob | None = None
        self.entries: dict[int, Entry] = {}
        self._held: list[local.Pin] = []

    def __enter__(self) -> Self:
        """Lock and read the folder. Raises OutputError, Locked or Corrupt."""
        self.folder = followed(self.folder)
        # Without a fallback to a lock file that a killed run would leave behind for ever.
        self._lock = FileLock(self.folder / LOCK, thread_local=False, fallback_to_soft=False)
        check_own_folders(self.folder)
        check_own_files(self.folder)
        check_folder(self.folder)
        local.make_folder(self.folder, kept=_KEPT)
        self._acquire()
        try:
            for name in (LEDGER, SCRATCH, QUARANTINE):
                local.make_folder(self.folder / name, kept=_KEPT)
            self._hold()
            # A killed run may have published an entry without syncing the name; later shards build on it.
            local.sync_names(self.folder / LEDGER, kept=_KEPT)
            self.job = read_job(self.folder)
            self.entries = {entry.ordinal: entry for entry in read_entries(self.folder)}
            self._check_committed()
            if self._writes_shards:
                remove_leftovers(self.folder, self.job, [shard.ordinal for shard in self.pending()])
                name_foreign(self.folder, self.entries.values())
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in (LEDGER, SCRATCH, QUARANTINE):
            # rmdir fails on a folder with files, which stays.
            with contextlib.suppress(OSError):
                (self.folder / name).rmdir()
        self._release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire(timeout=_LOCK_S)
        except Timeout as error:
            raise Locked(f"another run is writing to {self.folder}; wait for it or choose another --output") from error
        except OSError as error:
            raise OutputError(
                f"{self.folder / LOCK} cannot be locked: {error.strerror or error}; choose another --output"
            ) from error

    def begin(self, job: OutputJob) -> None:
        """Record the job of this folder. Raises OutputError."""
        self.job = self._write_sealed(self.folder / LEDGER / JOB, job)

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
        assert self.job is not None
        self._note(seal(Attempt(job=self.job.digest, ordinal=shard.ordinal))[1])
        died = False
        try:
            yield
        except (MemoryError, TokenizerFailed):
            died = True
            raise
        finally:
            if not died:
                self._note(b"")

    def _note(self, data: bytes) -> None:
        self._check_held()
        # Not synced: it tells of the death of this process, not of the machine's.
        with contextlib.suppress(OSError):
            local.write_note(self.folder / LEDGER / ATTEMPT, data)

    def set_aside(self, rows: list[SetAside]) -> None:
        """Record rows that ended a process. Raises OutputError."""
        self._write_sealed(self.folder / LEDGER / SET_ASIDE, SetAsideRows(job=self._digest, rows=rows))

    def died_at(self) -> Shard | None:
        """Return the pending shard that the last process died preparing."""
        # The note is not synced: a power loss may leave any bytes.
        with contextlib.suppress(Corrupt):
            ordinal = read_attempt(self.folder, self.job) if self.job is not None else None
            return next((shard for shard in self.pending() if shard.ordinal == ordinal), None)
        return None

    def commit(self, entry: Entry, data: memoryview, lines: bytes) -> Entry:
        """Commit a shard and the quarantine; return the entry.

        Raises ConservationError or OutputError.
        """
        assert self.job is not None
        check_conservation(entry, planned=sum(piece.rows for piece in entry.pieces))
        entry, sealed = seal(
            msgspec.structs.replace(
                entry,
                bytes=data.nbytes,
                sha256=hashlib.sha256(data).hexdigest(),
                quarantine_sha256=hashlib.sha256(lines).hexdigest() if lines else "",
                job=self.job.digest,
            )
        )
        place = self.folder / LEDGER / f"{self.job.stem(entry.ordinal)}.json"
        # The part before its quarantine, whose digest its footer has: so a leftover is known. The entry last, and
        # never overwritten: a shard is committed by its name appearing in the ledger.
        files: dict[Path, bytes | memoryview] = {self.folder / entry.file: data}
        files |= {quarantine_path(self.folder, entry.file): lines} if lines else {}
        files[place] = sealed
        try:
            for path, content in files.items():
                with self._in_place():
                    local.publish_file(path, content, scratch=self.folder / SCRATCH, kept=_KEPT)
        except Corrupt:
            # The file is another's: not ours to remove, nor is what it belongs to.
            raise
        except BaseException:
            if not place.exists():
                self._roll_back(files)
            raise
        self.entries[entry.ordinal] = entry
        return entry

    def _roll_back(self, files: dict[Path, bytes | memoryview]) -> None:
        """Remove what was written of a shard without an entry."""
        # What cannot be removed now the next run removes.
        with contextlib.suppress(OSError, OutputError):
            self._check_held()
            for path, content in files.items():
                if path.is_file() and not path.is_symlink() and path.read_bytes() == bytes(content):
                    path.unlink()

    def complete(self, manifest: Manifest, report: str) -> None:
        """Write report and manifest. Raises OutputError, Corrupt."""
        if read_job(self.folder) != self.job:
            raise Corrupt(f"{self.folder / LEDGER / JOB} was removed or replaced during the run; restore it")
        self._check_committed()
        check_own_files(self.folder)
        if (note := self.folder / LEDGER / ATTEMPT).is_file():
            local.remove(note, kept=_KEPT)
        # The manifest last: a folder that has one is complete.
        self.write_report(report)
        self._write_sealed(self.folder / MANIFEST, manifest, indent=2)

    def write_report(self, page: str) -> Path:
        """Write the HTML report; return the path. Raises OutputError."""
        self._write(self.folder / REPORT, seal_page(page.encode(), self._digest))
        return self.folder / REPORT

    def write_tuning(self, tuning: Tuning) -> None:
        """Write the tuning record of this run. Raises OutputError."""
        self._write_sealed(self.folder / TUNING, msgspec.structs.replace(tuning, job=self._digest), indent=2)

    @property
    def _digest(self) -> str:
        assert self.job is not None
        return self.job.digest

    def _write_sealed(self, path: Path, record: Record, *, indent: int = 0) -> Record:
        sealed, data = seal(record, indent=indent)
        self._write(path, data)
        return sealed

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        with self._in_place():
            local.write_file(path, data, scratch=self.folder / SCRATCH, kept=_KEPT)

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Check before a write, and to explain a failed one."""
        self._check_held()
        try:
            yield
        except OutputError:
            self._check_held()
            raise

    def _hold(self) -> None:
        try:
            for name in _HELD:
                self._held.append(local.pin(self.folder / name))
        except OSError as error:
            raise OutputError(f"{error.filename} cannot be opened: {error.strerror}; check permissions") from error

    def _release(self) -> None:
        while self._held:
            local.unpin(self._held.pop())
        self._lock.release()

    def _check_held(self) -> None:
        """Raise OutputError unless the folder is still the same."""
        if not all(map(local.is_pinned, self._held)):
            raise OutputError(
                f"{self.folder} was moved, replaced or emptied while this run wrote to it; nothing more is written: put"
                " it back, and run again"
            )

    def _check_committed(self) -> None:
        """Raise Corrupt for entries of other jobs, and missing files."""
        for entry in self.entries.values():
            assert self.job is not None
            place = self.folder / LEDGER / f"{self.job.stem(entry.ordinal)}.json"
            remedy = f"restore it, or remove {place} and {MANIFEST} to embed its rows again"
            if (problem := entry_problem(self.job, entry)) is not None or not place.is_file():
                raise Corrupt(f"{place} {problem or 'is missing, or has another name'}; {remedy}")
            path = self.folder / entry.file
            if not path.is_file() or path.stat().st_size != entry.bytes:
                raise Corrupt(f"{path} is committed but missing or of another size; {remedy}")
            rows = quarantine_path(self.folder, entry.file)
            if entry.quarantine_sha256 and not rows.is_file():
                raise Corrupt(f"{rows} is committed but missing; {remedy}")
        if (manifest := read_manifest(self.folder)) is None or self.job is None:
            return
        if manifest.job != self.job.digest:
            raise Corrupt(f"{self.folder / MANIFEST} is of another job; restore its own, or remove it and run again")
        for shard in self.pending()[:1]:
            name = f"{LEDGER}/{self.job.stem(shard.ordinal)}.json"
            raise Corrupt(f"{name} is missing, but {MANIFEST} says complete; restore it, or remove {MANIFEST} too")
