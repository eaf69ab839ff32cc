"""Leftovers of killed runs, and files of others."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from embedmill.base.errors import OutputError
from embedmill.base.files import local
from embedmill.base.files.digest import sha256_of
from embedmill.base.records import Entry
from embedmill.sink.folder import SCRATCH, OutputJob, quarantine_path
from embedmill.sink.shard import read_footer

LOG = logging.getLogger("embedmill")
TEMPORARY = re.compile(r"[0-9a-f]{32}\.tmp")


def remove_leftovers(folder: Path, job: OutputJob | None, pending: Sequence[int]) -> None:
    """Remove temporary files, and files of `pending` shards.

    Raises OutputError for a file of others that has the name of a shard to come.
    """
    for path in (folder / SCRATCH).iterdir():
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            local.remove(path)
    if job is None:
        return
    for ordinal in pending:
        part = folder / job.part(ordinal)
        footer = read_footer(part) if part.is_file() and not part.is_symlink() else {}
        is_ours = (footer.get("job"), footer.get("shard")) == (job.digest, str(ordinal))
        rows = quarantine_path(folder, part.name)
        # Before the part, whose footer knows it.
        for path, ours in ((rows, is_ours and _has_digest(rows, footer.get("quarantine"))), (part, is_ours)):
            if ours:
                local.remove(path)
            elif path.exists() or path.is_symlink():
                raise OutputError(f"{path} was not written by this job, which needs the name; move it elsewhere")


def name_foreign(folder: Path, entries: Iterable[Entry]) -> None:
    """Warn of Parquet files among the parts."""
    for name in foreign_tables(folder, entries)[:1]:
        LOG.warning(
            "%s is not of this output, but whoever reads %s reads it too; move it elsewhere",
            folder / name,
            folder / "*.parquet",
        )


def foreign_tables(folder: Path, entries: Iterable[Entry]) -> list[str]:
    """List the Parquet files that are not committed parts, sorted."""
    own = {entry.file for entry in entries}
    return sorted({path.name for path in folder.glob("*.parquet")} - own)


def _has_digest(path: Path, sha256: str | None) -> bool:
    return path.is_file() and not path.is_symlink() and sha256_of([path]) == sha256
