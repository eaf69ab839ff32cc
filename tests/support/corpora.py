"""Small corpora on disk, and jobs that read them: no model, no output."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedmill.base.config import RunConfig
from embedmill.base.configfile import parse_config
from embedmill.base.records import Documents, InputFile, Piece, Shard, Span
from embedmill.source import Reader, discover, resolve, survey


class Corpus:
    """A folder of input files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, content: str | bytes) -> Path:
        """A text file, packed as its name ends."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(packed(data, path.suffix))
        return path

    def write_table(self, name: str, columns: dict[str, Any] | pa.Table, **options: Any) -> Path:
        """A Parquet file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, path, write_page_checksum=True, **options)
        return path

    def job(self, *names: str, **tables: dict[str, Any]) -> Job:
        """What reads the named files, or the whole folder; `tables` are those of a config file."""
        given = {"paths": [str(self.folder / name) for name in names or ("",)], **tables.pop("input", {})}
        config = parse_config({"input": given, **tables}, place="test")
        return Job(discover(config.input).files, config)


class Job:
    """Input files and how they are read."""

    def __init__(self, files: list[InputFile], config: RunConfig) -> None:
        self.files = files
        self.config = config

    def spans(self) -> list[Span]:
        """What the survey finds."""
        return list(survey(self.files, self.config, resolve(self.files, self.config)))

    def reader(self) -> Reader:
        """A reader that must be closed."""
        return Reader(self.files, self.config, resolve(self.files, self.config))

    def read(self) -> Documents:
        """The whole input as one shard."""
        return self.read_shards(cut(self.spans(), []))[0]

    def read_shards(self, shards: Sequence[Shard]) -> list[Documents]:
        """The documents of each shard, read in the given order."""
        with self.reader() as reader:
            return [reader.read(shard) for shard in shards]


def packed(data: bytes, suffix: str) -> bytes:
    """`data`, compressed as a file name's last suffix says."""
    if suffix == ".gz":
        return gzip.compress(data, compresslevel=1, mtime=0)
    if suffix == ".zst":
        return bytes(pa.compress(data, codec="zstd", asbytes=True))
    if suffix == ".bz2":
        return bz2.compress(data)
    return lzma.compress(data) if suffix == ".xz" else data


def cut(spans: Iterable[Span], places: Iterable[int]) -> list[Shard]:
    """Shards that end after the given numbers of rows, and at the end of the input."""
    rows = [
        Piece(file=span.file, first_row=span.first_row + at, rows=1, start=int(start), stop=int(stop))
        for span in spans
        for at, (start, stop) in enumerate(zip(span.marks[:-1], span.marks[1:], strict=True))
    ]
    bounds = sorted({0, len(rows), *(place for place in places if place < len(rows))})
    pairs = list(itertools.pairwise(bounds)) or [(0, 0)]
    return [Shard(ordinal=ordinal, pieces=_joined(rows[first:last])) for ordinal, (first, last) in enumerate(pairs)]


def _joined(rows: list[Piece]) -> tuple[Piece, ...]:
    """Single rows as pieces, one for each run of rows of one file."""
    pieces: list[Piece] = []
    for row in rows:
        last = pieces[-1] if pieces else None
        if last is not None and last.file == row.file:
            pieces[-1] = Piece(
                file=last.file, first_row=last.first_row, rows=last.rows + 1, start=last.start, stop=row.stop
            )
        else:
            pieces.append(row)
    return tuple(pieces)
