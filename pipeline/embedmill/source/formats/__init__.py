"""Input formats by name, each a module that implements `Format`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import pyarrow as pa

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import ResolvedColumns
from embedmill.source.formats import csv, jsonl, parquet
from embedmill.source.formats.rows import OpenFile


class Format(Protocol):
    """Input format; raises InputError for damage and missing columns."""

    ENDINGS: tuple[str, ...]
    COMPRESSIBLE: bool  # as a whole file

    def find_columns(self, file: InputFile, others: Iterable[InputFile], config: RunConfig) -> ResolvedColumns | None:
        """Return the job's columns, None where `file` has no content."""
        # `others` are the files after it, of any format.

    def carried_types(self, file: InputFile, config: RunConfig) -> pa.Schema | None:
        """Return types of carried columns, None without rows."""
        # Asked only of files after the first with content.

    def survey(self, number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
        """Yield the rows of file `number` in spans, without parsing."""

    def open_file(self, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> OpenFile:
        """Open a file for reading."""


# In the order in which messages name their endings.
FORMATS: dict[str, Format] = {"parquet": parquet, "jsonl": jsonl, "csv": csv}
