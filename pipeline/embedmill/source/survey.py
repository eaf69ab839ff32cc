"""First pass over an input: columns and row boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import ResolvedColumns, resolved, text_carried
from embedmill.source.formats import FORMATS


def resolve(files: Sequence[InputFile], config: RunConfig) -> ResolvedColumns:
    """Return the job's columns, by the first file with content.

    Looks at a Parquet schema, a CSV header, or the first 1,000 lines of the JSONL files at the start.
    Raises InputError where a column is missing there or a carried one has no single type.
    """
    for at, file in enumerate(files):
        if columns := FORMATS[file.format].find_columns(file, islice(files, at + 1, None), config):
            return columns
    return resolved(config, (), text_carried(config))


def survey(files: Sequence[InputFile], config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    """Yield the rows of all files, in order, without parsing.

    A span has at most 65,536 rows. JSONL rows are lines, blank ones too. CSV rows are the records after
    the header. Parquet rows come from the metadata. Raises InputError for each file that is damaged or
    lacks a column.
    """
    for number, file in enumerate(files):
        yield from FORMATS[file.format].survey(number, file, config, columns)
