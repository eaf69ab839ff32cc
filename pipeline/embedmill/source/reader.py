"""The second pass over an input: the documents of each shard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

import pyarrow as pa

from embedmill.base.config import RunConfig
from embedmill.base.errors import ConservationError, InputError
from embedmill.base.records import Documents, InputFile, Rejected, Shard
from embedmill.source.columns import ResolvedColumns
from embedmill.source.formats.csv import open_csv
from embedmill.source.formats.jsonl import open_jsonl
from embedmill.source.formats.parquet import ParquetFile
from embedmill.source.formats.rows import BLANK, BadRow, Block, OpenFile, excerpt, file_and_row, taken
from embedmill.source.ids import SeenIds

Opener = Callable[[InputFile, RunConfig, ResolvedColumns], OpenFile]

_OPENERS: dict[str, Opener] = {"parquet": ParquetFile, "jsonl": open_jsonl, "csv": open_csv}


class Reader:
    """Reads the shards of a job; a context manager.

    Shards may be read in any order, and cost least in increasing order: the current file stays open,
    so that consecutive pieces of it are read once. Where duplicate ids are looked for, an id counts
    as a duplicate if it was read before: then read each shard once and in increasing order, after
    giving `remember` the ids of the shards that are left out.
    """

    def __init__(self, files: Sequence[InputFile], config: RunConfig, columns: ResolvedColumns) -> None:
        self._files = files
        self._config = config
        self._columns = columns
        self._seen = SeenIds() if config.rows.duplicate_id != "keep" and columns.id is not None else None
        self._number = -1
        self._open: OpenFile | None = None

    @property
    def finds_duplicates(self) -> bool:
        """Whether ids are compared with those of rows before."""
        return self._seen is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, shard: Shard) -> Documents:
        """The shard's good rows, and what became of the others by the policies of `config.rows`.

        Where no columns are carried, `carried` is a table without columns, and so without rows.
        Raises InputError where a file is damaged or changed, or a policy says "fail"; and
        ConservationError where rows went missing.
        """
        blocks = [
            (self._files[piece.file], block)
            for piece in shard.pieces
            for block in self._opened(piece.file).blocks(piece)
        ]
        fresh = iter(self._fresh([id for _, block in blocks for id in block.ids]))
        gathered = _Gathered(self._config, self._columns)
        for file, block in blocks:
            mine = list(islice(fresh, len(block.ids)))
            gathered.add(file, block if all(mine) else _without_duplicates(block, mine))
        return gathered.documents(shard)

    def remember(self, ids: Sequence[str]) -> None:
        """Takes note of the ids of rows that are not read again: those written by an earlier run."""
        if self._seen is not None:
            self._seen.fresh(ids)

    def close(self) -> None:
        """Lets go of the current file."""
        if self._open is not None:
            self._open.close()
        self._open, self._number = None, -1

    def _opened(self, number: int) -> OpenFile:
        if self._open is None or number != self._number:
            self.close()
            file = self._files[number]
            self._open, self._number = _OPENERS[file.format](file, self._config, self._columns), number
        return self._open

    def _fresh(self, ids: list[str]) -> list[bool]:
        """For each id of a shard whether it is no duplicate."""
        return [True] * len(ids) if self._seen is None else self._seen.fresh(ids).tolist()


class _Gathered:
    """The rows of a shard, block by block."""

    def __init__(self, config: RunConfig, columns: ResolvedColumns) -> None:
        self._config = config
        self._columns = columns
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._carried = [columns.carried.empty_table()]
        self._rejected: list[Rejected] = []
        self._skipped = 0

    def add(self, file: InputFile, block: Block) -> None:
        self._ids += block.ids
        self._texts += block.texts
        self._carried.append(block.carried)
        for fault in block.faults:
            self._turn_away(file, fault)

    def documents(self, shard: Shard) -> Documents:
        found = len(self._ids) + len(self._rejected) + self._skipped
        if found != shard.rows:
            raise ConservationError(f"shard {shard.ordinal} has {shard.rows} rows, but gave {found}")
        return Documents(
            ids=self._ids,
            texts=self._texts,
            carried=pa.concat_tables(self._carried),
            rejected=self._rejected,
            rows_read=found,
            rows_skipped=self._skipped,
        )

    def _turn_away(self, file: InputFile, fault: BadRow) -> None:
        """Does with a bad row what the policy for its kind says; blank lines are always skipped."""
        policy = "skip" if fault.kind == BLANK else getattr(self._config.rows, fault.kind)
        if policy == "fail":
            raise _failure(file, fault)
        if policy == "skip":
            self._skipped += 1
            return
        id = file_and_row(file, fault.row) if self._columns.id is None else fault.id
        self._rejected.append(
            Rejected(file=file.name, row=fault.row + 1, reason=fault.reason, id=id, excerpt=fault.excerpt)
        )


def _without_duplicates(block: Block, fresh: list[bool]) -> Block:
    """The block with the good rows that are not fresh among the faults."""
    kept = [at for at, is_fresh in enumerate(fresh) if is_fresh]
    faults = [_duplicate(block, at) for at, is_fresh in enumerate(fresh) if not is_fresh]
    return Block(
        rows=[block.rows[at] for at in kept],
        ids=[block.ids[at] for at in kept],
        texts=[block.texts[at] for at in kept],
        carried=taken(block.carried, kept),
        faults=sorted(block.faults + faults, key=lambda fault: fault.row),
    )


def _duplicate(block: Block, at: int) -> BadRow:
    reason = f'the id "{block.ids[at]}" occurs before in this input'
    return BadRow(block.rows[at], "duplicate_id", reason, block.ids[at], excerpt(block.texts[at]))


def _failure(file: InputFile, fault: BadRow) -> InputError:
    place = "line" if file.format == "jsonl" else "row"
    return InputError(
        f"{file.path}, {place} {fault.row + 1}: {fault.reason}; mend it, or set"
        f' rows.{fault.kind} = "quarantine" to set such rows aside'
    )
