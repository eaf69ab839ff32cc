"""The first pass over an input: what columns it has, and where its rows begin and end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

import pyarrow as pa

from embedmill.base.config import RunConfig
from embedmill.base.records import InputFile, Span
from embedmill.source.columns import ResolvedColumns, require, require_types, text_carried, wanted
from embedmill.source.formats import csv, jsonl, parquet_schema
from embedmill.source.formats.boundaries import CsvCutter, LineCutter, spans
from embedmill.source.stream import ByteStream

SAMPLED_LINES = 1000


def survey(files: Sequence[InputFile], config: RunConfig) -> Iterator[Span]:
    """The rows of all files, in order, without parsing them; at most 65,536 rows per span.

    JSONL rows are lines, blank ones too. CSV rows are the records after the header. Parquet rows come
    from the metadata. Raises InputError as `resolve` does, and for each file that is damaged or
    lacks a column.
    """
    columns = resolve(files, config)
    for number, file in enumerate(files):
        if file.format == "parquet":
            yield from parquet_schema.survey_parquet(number, file, config, columns)
        else:
            yield from _survey_text(number, file, config, columns)


def resolve(files: Sequence[InputFile], config: RunConfig) -> ResolvedColumns:
    """The columns of the job, by the first file that shows any.

    Looks at a Parquet schema, a CSV header, or the first 1,000 lines of the JSONL files at the start.
    Raises InputError where a column is missing there or a carried one has no single type.
    """
    file, names, all_names = _look(files, config)
    id = config.columns.id or ("id" if "id" in names else None)
    if file is not None:
        where = " in the first lines" if file.format == "jsonl" else ""
        require(file, all_names, wanted(config.columns), where=where)
    return ResolvedColumns(
        text=config.columns.text,
        id=id,
        carried=_carried(file, config),
    )


def _look(files: Sequence[InputFile], config: RunConfig) -> tuple[InputFile | None, list[str], list[str]]:
    """The first file that shows columns, its columns, and those of the JSONL files that follow it too."""
    for at, file in enumerate(files):
        if file.format == "jsonl":
            names, all_names = _look_at_lines(files[at:], config)
        elif file.format == "csv":
            names = all_names = csv.read_header(file, config).names
        else:
            names = all_names = parquet_schema.read_schema(file).names
        if all_names:
            return file, names, all_names
    return None, [], []


def _look_at_lines(files: Sequence[InputFile], config: RunConfig) -> tuple[list[str], list[str]]:
    """The keys in the first 1,000 lines: those of the first file that has any, and all."""
    first: dict[str, None] = {}
    seen: dict[str, None] = {}
    left = SAMPLED_LINES
    for file in files:
        if file.format != "jsonl" or not left:
            break
        for keys in islice(jsonl.keys(file, config), left):
            seen |= dict.fromkeys(keys)
            left -= 1
        first = first or dict(seen)
    return list(first), list(seen)


def _carried(file: InputFile | None, config: RunConfig) -> pa.Schema:
    if file is None or file.format != "parquet":
        return text_carried(config)
    return parquet_schema.carried_schema(parquet_schema.read_schema(file), config)


def _survey_text(number: int, file: InputFile, config: RunConfig, columns: ResolvedColumns) -> Iterator[Span]:
    start = 0
    if file.format == "csv":
        start = csv.checked_header(file, config, columns).start
    else:
        require_types(file, text_carried(config), columns.carried)
    with closing(ByteStream(file, config.limits)) as stream:
        stream.seek(start)
        cutter = LineCutter(0) if file.format == "jsonl" else CsvCutter(csv.delimiter(file, config), start)
        yield from spans(number, stream, cutter)
