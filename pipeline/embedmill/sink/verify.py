"""Verification of an output folder against the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from embedmill.base.errors import ConservationError, Corrupt, OutputError
from embedmill.base.files.digest import sha256_of
from embedmill.base.files.sealed import digest_in, is_sealed_page, read_sealed
from embedmill.base.records import NORM_TOLERANCE, Entry
from embedmill.base.results import Manifest, Totals, Tuning
from embedmill.base.signals import checkpoint
from embedmill.sink.folder import (
    ATTEMPT,
    JOB,
    LEDGER,
    QUARANTINE,
    REPORT,
    SCRATCH,
    SET_ASIDE,
    TUNING,
    check_conservation,
    check_own_folders,
    entry_problem,
    foreign_names,
    is_locked,
    quarantine_path,
    read_attempt,
    read_entries,
    read_job,
    read_manifest,
    read_set_aside,
    shard_files,
    total,
)
from embedmill.sink.leftovers import TEMPORARY, foreign_tables
from embedmill.sink.shard import VECTOR, footer_of

# A run that begins or commits meanwhile is looked at again so often.
_VIEWS = 5
# Components of vectors that are looked at together: 64 MiB.
_PART_NUMBERS = 1 << 24
# More than a row of a quarantine takes, and what any such file may have: longer ones are not worth reading.
_ROW_BYTES = 1 << 20
_FILE_BYTES = 1 << 30


class VerifyResult(Struct, frozen=True, kw_only=True):
    """Result of a verification; a sound output has no `problems`."""

    complete: bool
    writing: bool  # a run writes to it: what is committed so far was checked
    shards_planned: int
    totals: Totals
    problems: list[str]
    foreign: list[str]  # names that are not of the output, and that its readers do not take


def verify(folder: Path) -> VerifyResult:
    """Check every file of an output. Raises OutputError or Corrupt."""
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is no folder, so no embedmill output")
        for _ in range(_VIEWS):
            before = _Output(folder)
            found = before.verify()
            if found.writing or _Output(folder).same_as(before):
                break
    except OSError as error:
        raise OutputError(f"{error.filename or folder} cannot be read: {error.strerror}; check permissions") from error
    return found


class _Output:
    """View of an output: job, manifest and entries."""

    def __init__(self, folder: Path) -> None:
        check_own_folders(folder)
        job = read_job(folder)
        if job is None:
            raise OutputError(f"{folder} is not an embedmill output (it has no _ledger/job.json)")
        self._folder, self._job = folder, job
        self._writing = is_locked(folder)
        # Before the entries: what a manifest counts is in the ledger.
        self._manifest = read_manifest(folder)
        self._entries = list(read_entries(folder))

    def same_as(self, other: _Output) -> bool:
        """Return whether nothing was written between two views."""
        mine, its = ((one._job, one._writing, one._manifest, one._entries) for one in (self, other))
        return mine == its

    def verify(self) -> VerifyResult:
        """Check the files. Raises Corrupt for unreadable ones."""
        problems = [problem for entry in self._entries for problem in self._shard_problems(entry)]
        problems += self._file_problems()
        if not self._writing:
            problems += self._foreign_problems()
        if self._manifest is not None:
            problems += self._manifest_problems(self._manifest)
        return VerifyResult(
            complete=self._manifest is not None,
            writing=self._writing,
            shards_planned=len(self._job.shards),
            totals=total(self._entries),
            problems=problems,
            foreign=sorted(self._strangers()),
        )

    def _shard_problems(self, entry: Entry) -> Iterator[str]:
        checkpoint()
        if (problem := entry_problem(self._job, entry)) is not None:
            yield f"{entry.file}: its ledger entry {problem}"
            return
        try:
            check_conservation(entry, planned=self._job.shards[entry.ordinal].rows)
        except ConservationError as error:
            yield f"{entry.file}: {error}"
        if entry.quarantine_sha256:
            path, most = (
                quarantine_path(self._folder, entry.file),
                max(_ROW_BYTES * entry.rows_quarantined, _FILE_BYTES),
            )
            yield from _digest_problems(path, entry.quarantine_sha256, range(most + 1))
        # A file of another checksum has no content worth checking.
        damage = list(_digest_problems(self._folder / entry.file, entry.sha256, range(entry.bytes, entry.bytes + 1)))
        yield from damage or _table_problems(self._folder / entry.file, entry)

    def _file_problems(self) -> Iterator[str]:
        """Check the files that stand for themselves."""
        read_set_aside(self._folder, self._job)
        if not self._writing:
            try:
                read_attempt(self._folder, self._job)
            except Corrupt:
                yield f"{LEDGER}/{ATTEMPT}: damaged; the next run writes it again, and nothing is lost"
        checks: dict[str, Callable[[Path], bool]] = {
            REPORT: partial(is_sealed_page, job=self._job.digest),
            TUNING: self._is_own_tuning,
        }
        for name, sound in checks.items():
            try:
                if not sound(self._folder / name):
                    yield f"{name}: damaged, of another job, or of an earlier version"
            except FileNotFoundError:
                if name == REPORT and self._manifest is not None:
                    yield f"{name}: missing; `embedmill report` writes it again"
            except (OSError, ValueError) as error:
                yield f"{name}: {error}"

    def _is_own_tuning(self, path: Path) -> bool:
        return read_sealed(path, Tuning).job == self._job.digest

    def _foreign_problems(self) -> Iterator[str]:
        """Name files of others among the parts, quarantine and ledger."""
        committed = {entry.ordinal for entry in self._entries}
        left = {self._job.part(one.ordinal) for one in self._job.shards if one.ordinal not in committed}
        for name in foreign_tables(self._folder, self._entries):
            left_over = name in left and self._manifest is None
            known = "left by a killed run, which the next removes, or of others" if left_over else "others read it too"
            yield f"{name}: not in the ledger ({known})"
        kept = {quarantine_path(self._folder, entry.file).name for entry in self._entries if entry.quarantine_sha256}
        kept |= {quarantine_path(self._folder, part).name for part in left}
        yield from self._unknown(QUARANTINE, kept)
        entries = {f"{self._job.stem(ordinal)}.json" for ordinal in committed}
        yield from self._unknown(LEDGER, {JOB, ATTEMPT, SET_ASIDE} | entries)
        scratch = self._folder / SCRATCH
        ours = {path.name for path in scratch.glob("*") if TEMPORARY.fullmatch(path.name) and path.is_file()}
        yield from self._unknown(SCRATCH, ours)

    def _unknown(self, name: str, known: set[str]) -> Iterator[str]:
        folder = self._folder / name
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.name not in known:
                yield f"{name}/{path.name}: not of this output; move it elsewhere"

    def _strangers(self) -> Iterator[str]:
        tables = {path.name for path in self._folder.glob("*.parquet")}
        yield from set(foreign_names(self._folder)) - tables

    def _manifest_problems(self, manifest: Manifest) -> Iterator[str]:
        job, entries = self._job, self._entries
        if len(entries) != len(job.shards):
            yield f"the manifest says complete, but {len(entries)} of {len(job.shards)} shards are committed"
        if manifest.totals != total(entries) or manifest.shards != shard_files(entries):
            yield "the manifest's totals or files are not those of the ledger"
        if manifest.job != job.digest or manifest.fingerprint != job.fingerprint:
            yield "the manifest is of another job than the ledger"
        for name, digest in ((TUNING, manifest.tuning), (f"{LEDGER}/{SET_ASIDE}", manifest.set_aside)):
            if digest != digest_in(self._folder / name):
                yield f"{name}: not the one that the manifest names"
        if manifest.identity != job.fingerprint.get("model.identity"):
            yield "the manifest's identity is not that of the ledger"


def _digest_problems(path: Path, recorded: str, sizes: range) -> Iterator[str]:
    """Describe another file than was committed."""
    try:
        if not path.is_file():
            yield f"{path.name}: committed, but missing"
        elif (size := path.stat().st_size) not in sizes:
            yield f"{path.name}: has {size:,} bytes, not those in the ledger"
        elif sha256_of([path]) != recorded:
            yield f"{path.name}: its sha256 is not the one in the ledger"
    except OSError as error:
        yield f"{path.name}: cannot be read ({error.strerror})"


def _table_problems(path: Path, entry: Entry) -> Iterator[str]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
            footer = footer_of(schema)
            if rows != entry.vectors:
                yield f"{path.name}: {rows} rows, but {entry.vectors} in the ledger"
            if footer.get("identity") != entry.identity:
                yield f"{path.name}: its footer names another model than the ledger"
            kind = schema.field(VECTOR).type if schema.names.count(VECTOR) == 1 else None
            if kind is None or not pa.types.is_fixed_size_list(kind) or kind.value_type != pa.float32():
                yield f"{path.name}: it has no column of float32 vectors"
            elif str(kind.list_size) != footer.get("dim"):
                yield f"{path.name}: vectors of {kind.list_size} dimensions, but {footer.get('dim')} in the footer"
            else:
                yield from _vector_problems(path.name, file, kind.list_size, footer.get("normalized") == "true")
    except (pa.ArrowException, OSError) as error:
        yield f"{path.name}: cannot be read ({str(error).splitlines()[0]})"


def _vector_problems(name: str, file: pq.ParquetFile, dim: int, normalized: bool) -> Iterator[str]:
    """Describe the first bad vector."""
    # Not the other columns, whose bytes are those of the digest: a few may repeat a long text without end.
    worst = 0.0
    for part in file.iter_batches(max(1, _PART_NUMBERS // dim), columns=[VECTOR]):
        checkpoint()
        column = part.column(VECTOR)
        if column.null_count:
            yield f"{name}: a vector is null"
            return
        if (numbers := column.flatten()).null_count:
            yield f"{name}: a vector has no number at some place"
            return
        vectors = numbers.to_numpy().reshape(-1, dim)
        if not np.isfinite(vectors).all():
            yield f"{name}: a vector is not finite"
            return
        worst = max(worst, float(np.abs(np.linalg.norm(vectors, axis=1) - 1).max(initial=0)))
    if normalized and worst > NORM_TOLERANCE:
        yield f"{name}: a vector's length differs from 1 by {worst:.3g}"
