"""Reading an output folder: job, entries, manifest, quarantine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from filelock import FileLock, Timeout

from embedmill.base.errors import ConservationError, Corrupt, OutputError
from embedmill.base.files import local, names
from embedmill.base.files.sealed import Sealed, ends_like_a_page, read_sealed, require_regular
from embedmill.base.records import Entry, Rejected, SetAside, Shard
from embedmill.base.results import Manifest, ShardFile, Totals, Tuning
from embedmill.base.signals import checkpoint

T = TypeVar("T", bound=Sealed)
MANIFEST = "_manifest.json"
REPORT = "_report.html"
TUNING = "_tuning.json"
LEDGER = "_ledger"
QUARANTINE = "quarantine"
LOCK = "_run.lock"
SCRATCH = "_tmp"
JOB = "job.json"
ATTEMPT = "attempt"
SET_ASIDE = "set-aside.json"
# Everything that embedmill may leave in a folder before its first job is recorded.
OWN_NAMES = frozenset({MANIFEST, LEDGER, QUARANTINE, LOCK, SCRATCH, REPORT, TUNING})
# What file managers of Windows and macOS put into a folder that they show.
_OF_FILE_MANAGERS = frozenset({"desktop.ini", "thumbs.db", ".ds_store"})
OWN_FOLDERS = (LEDGER, SCRATCH, QUARANTINE)
# A name that may stand in the ledger for an entry.
ENTRY_NAME = re.compile(r"[0-9]{5,}\.json")
_LEAST_DIGITS = 5
# With the folder it lies in.
_LONGEST_OWN_NAME = 64


class OutputJob(Sealed, frozen=True, kw_only=True):
    """`_ledger/job.json`, written before the first shard."""

    fingerprint: dict[str, Any]
    shards: list[Shard]

    def stem(self, ordinal: int) -> str:
        """Format a shard's number, as wide as the last one."""
        return f"{ordinal:0{max(_LEAST_DIGITS, len(str(len(self.shards) - 1)))}d}"

    def part(self, ordinal: int) -> str:
        """Return the name of a shard's output file."""
        return f"part-{self.stem(ordinal)}.parquet"


class Attempt(Sealed, frozen=True, kw_only=True):
    """`_ledger/attempt`: the shard that is being read and tokenised."""

    job: str  # digest of `job.json`
    ordinal: int


class SetAsideRows(Sealed, frozen=True, kw_only=True):
    """`_ledger/set-aside.json`: rows that ended a process."""

    job: str
    rows: list[SetAside]


def check_folder(folder: Path) -> None:
    """Raise OutputError for a file or a foreign folder."""
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file; --output must name a folder")
        if not folder.is_dir() or (folder / LEDGER / JOB).is_file():
            return
        foreign = foreign_names(folder)
        for name in (LEDGER, QUARANTINE):
            foreign += [f"{name}/{path.name}" for path in (folder / name).glob("*")]
        lost = (folder / MANIFEST).exists() or any(name.startswith(LEDGER) for name in foreign)
        # A run may have recorded its job meanwhile; all else it writes after that.
        if (folder / LEDGER / JOB).is_file():
            return
        if lost:
            raise Corrupt(f"{folder / LEDGER / JOB} is missing from an output; restore it, or choose another --output")
    except OSError as error:
        raise OutputError(f"{folder} cannot be read: {error.strerror}; choose another --output") from error
    if foreign:
        raise OutputError(
            f"{folder} is not an embedmill output (it holds {foreign[0]!r}); choose an empty or new --output"
        )


def foreign_names(folder: Path) -> list[str]:
    """List names that no output has, sorted. Raises OSError."""
    names = {path.name for path in folder.iterdir()} - OWN_NAMES
    return sorted(name for name in names if name.lower() not in _OF_FILE_MANAGERS)


def followed(folder: Path) -> Path:
    """Follow a link, and check a path's length. Raises OutputError."""
    if problem := names.beyond_limit(folder, room=_LONGEST_OWN_NAME):
        raise OutputError(f"{folder}: {problem}")
    try:
        if not folder.is_symlink():
            return folder
        if folder.is_dir():
            return folder.resolve()
    except (OSError, ValueError) as error:
        raise OutputError(f"{folder} cannot be read ({error}); choose another --output") from error
    raise OutputError(f"{folder} is a link, and leads to no folder; correct it, or choose another --output")


def check_own_folders(folder: Path) -> None:
    """Raise OutputError for links and files instead of folders."""
    for name in OWN_FOLDERS:
        if (what := local.no_folder(folder / name)) is not None:
            raise OutputError(f"{folder / name} is {what}, and nothing is written through it; move it elsewhere")


def check_own_files(folder: Path) -> None:
    """Raise OutputError for files of others under own names."""
    page = folder / REPORT
    try:
        links = [name for name in (MANIFEST, REPORT, TUNING) if (folder / name).is_symlink()]
        foreign = not links and page.exists() and not ends_like_a_page(page)
    except (OSError, ValueError) as error:
        raise OutputError(f"{page} cannot be read ({error}); move it elsewhere, or choose another --output") from error
    if links:
        raise OutputError(f"{folder / links[0]} is a link, and nothing is written through it; move it elsewhere")
    if foreign:
        raise OutputError(f"{page} was not written by embedmill, or is damaged; move it elsewhere")


def is_locked(folder: Path) -> bool:
    """Return whether a run writes, or may write."""
    path = folder / LOCK
    try:
        if not path.is_file() or path.is_symlink():
            return False
        if os.name != "nt":
            return local.is_flocked(path)
        with FileLock(path, thread_local=False, fallback_to_soft=False).acquire(timeout=0):
            return False
    except (OSError, Timeout):
        return True


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


def read_set_aside(folder: Path, job: OutputJob) -> list[SetAside]:
    """Read the rows that ended a process. Raises Corrupt."""
    found = _decode(folder / LEDGER / SET_ASIDE, SetAsideRows)
    if found is not None and found.job != job.digest:
        raise Corrupt(f"{folder / LEDGER / SET_ASIDE} is of another job; restore its own, or remove it")
    return found.rows if found is not None else []


def read_attempt(folder: Path, job: OutputJob) -> int | None:
    """Read the shard of an attempt, if any. Raises Corrupt."""
    path = folder / LEDGER / ATTEMPT
    # Emptied where the attempt has ended.
    if path.is_file() and not path.stat().st_size:
        return None
    found = _decode(path, Attempt)
    return found.ordinal if found is not None and found.job == job.digest else None


def read_entries(folder: Path) -> Iterator[Entry]:
    """Read the entries of committed shards, in order. Raises Corrupt."""
    for path in sorted(path for path in (folder / LEDGER).glob("*.json") if ENTRY_NAME.fullmatch(path.name)):
        checkpoint()
        entry = _decode(path, Entry)
        if entry is not None and entry.ordinal != int(path.stem):
            raise Corrupt(f"{path} is the entry of shard {entry.ordinal}; give it its own name again")
        if entry is not None:
            yield entry


def read_rejected(folder: Path, entries: Iterable[Entry]) -> Iterator[Rejected]:
    """Read the quarantined rows of shards, in order. Raises Corrupt."""
    for entry in entries:
        if not entry.quarantine_sha256:
            continue
        path = quarantine_path(folder, entry.file)
        try:
            yield from rejected_in(path)
        except (OSError, ValueError) as error:
            raise Corrupt(f"{path} cannot be read ({error}); run `embedmill verify {folder}`") from error


def rejected_in(path: Path) -> Iterator[Rejected]:
    """Read a quarantine file. Raises OSError, ValueError."""
    require_regular(path)
    try:
        # Line by line: a quarantine may be larger than memory.
        with path.open("rb") as file:
            yield from (msgspec.json.decode(line, type=Rejected) for line in file)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def quarantine_path(folder: Path, part: str) -> Path:
    """Return the path of the quarantine beside an output file."""
    return folder / QUARANTINE / f"{Path(part).stem}.jsonl"


def entry_problem(job: OutputJob, entry: Entry) -> str | None:
    """Describe how an entry differs from the plan."""
    if entry.job != job.digest or entry.identity != job.fingerprint.get("model.identity"):
        return f"is of another job or model ({entry.identity[:12]})"
    planned = job.shards[entry.ordinal] if entry.ordinal < len(job.shards) else None
    if planned is None or planned.pieces != entry.pieces or entry.file != job.part(entry.ordinal):
        return "covers other rows than the plan"
    return None


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
    return [
        ShardFile(file=one.file, rows=one.vectors, bytes=one.bytes, sha256=one.sha256, entry=one.digest)
        for one in entries
    ]


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
        return read_sealed(path, kind)
    except FileNotFoundError:
        return None
    except (PermissionError, NotADirectoryError) as error:
        raise OutputError(f"{path} cannot be read: {error.strerror}; check the folder and permissions") from error
    except (OSError, ValueError) as error:
        raise Corrupt(f"{path} cannot be read ({error}); restore it, or start again in a new --output") from error
