"""First pass over an input: columns and row boundaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import ResolvedColumns, resolved, text_carried, unified
from embedmill.source.digest import require_unchanged
from embedmill.source.formats import FORMATS
from embedmill.source.stream import translated


def resolve(files: Sequence[InputFile], config: RunConfig) -> ResolvedColumns:
    """Resolve columns and types over all files. Raises InputError."""
    for at, file in enumerate(files):
        if columns := FORMATS[file.format].find_columns(file, islice(files, at + 1, None), config):
            later = files[at + 1 :] if config.columns.carry else ()
            others = ((other, FORMATS[other.format].carried_types(other, config)) for other in later)
            return unified(columns, ((other, types) for other, types in others if types is not None))
    return resolved(config, (), text_carried(config))


def survey(files: Sequence[InputFile], config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    """Yield the rows of all files, in order. Raises InputError."""
    for number, file in enumerate(files):
        yield from FORMATS[file.format].survey(number, file, config, columns)
        # What was read since the digest is what the digest is of.
        with translated(file):
            require_unchanged(file)
