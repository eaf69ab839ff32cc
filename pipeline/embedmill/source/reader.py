"""Second pass over an input: documents of each shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice

import pyarrow as pa

from embedmill.base.config import RunConfig
from embedmill.base.errors import ConservationError, InputError
from embedmill.base.records import Documents, InputFile, Piece, Rejected, SetAside, Shard
from embedmill.source.columns import ResolvedColumns
from embedmill.source.digest import changed, is_unchanged, with_digest
from embedmill.source.formats import FORMATS
from embedmill.source.formats.rows import BLANK, BadRow, Block, OpenFile, excerpt, file_and_row, take
from embedmill.source.ids import SeenIds

# Of a shard whose files are touched meanwhile.
_READINGS = 5


class Reader(AbstractContextManager["Reader"]):
    """Reader of a job's shards; a context manager.

    Shards may be read in any order, and cost least in increasing order. Where duplicate ids are looked for, an id
    counts as a duplicate if it was read before: then read each shard once and in increasing order, after giving
    `remember` the ids of the shards that are left out.
    """

    def __init__(
        self,
        files: Sequence[InputFile],
        config: RunConfig,
        columns: ResolvedColumns,
        set_aside: Sequence[SetAside] = (),
    ) -> None:
        """Open nothing yet; `set_aside` rows count as malformed."""
        self._files = list(files)
        self._set_aside = {(one.file, one.row): one.reason for one in set_aside}
        self._config = config
        self._columns = columns
        self._seen_ids = SeenIds() if config.rows.duplicate_id != "keep" and columns.id is not None else None
        # The current file stays open, so that consecutive pieces of it are read and decompressed once.
        self._number = -1
        self._open: OpenFile | None = None

    @property
    def finds_duplicates(self) -> bool:
        """Return whether ids are compared with earlier rows."""
        return self._seen_ids is not None

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, shard: Shard) -> Documents:
        """Return a shard's documents, bad rows treated by `config.rows`.

        Raises InputError (a damaged or changed file, a policy of "fail") or ConservationError (missing rows).
        """
        blocks = self._read(shard)
        # Asked once for the whole shard: many small files would else mean many small lookups.
        ids = [id for _, block in blocks for id in block.ids]
        fresh = iter(self._seen_ids.fresh(ids).tolist() if self._seen_ids is not None else [True] * len(ids))
        collected = _Collected(self._config, self._columns)
        for file, block in blocks:
            mask = list(islice(fresh, len(block.ids)))
            collected.add(file, block if all(mask) else _without(block, _duplicates(block, mask)))
        return collected.documents(shard)

    def _read(self, shard: Shard) -> list[tuple[InputFile, Block]]:
        # A file that was only touched since is opened as it is now.
        self._touched(shard)
        for _ in range(_READINGS):
            blocks = list(self._bounded(shard))
            if not self._touched(shard):
                return blocks
            # The content is that of the digest again, or still: what was read meanwhile may not have been.
            self.close()
        raise changed(self._files[shard.pieces[0].file])

    def _bounded(self, shard: Shard) -> Iterator[tuple[InputFile, Block]]:
        """Yield blocks; raise InputError for too many carried bytes."""
        carried, most = 0, self._config.limits.carried_bytes
        for piece in shard.pieces:
            for block in self.blocks(piece):
                carried += block.carried.nbytes
                if carried > most:
                    raise InputError(
                        f"{self._files[piece.file].path}: the carried columns of {shard.rows} rows have more than the"
                        f" {most:,} bytes that limits.carried_bytes allows; lower shard.rows, or carry less"
                    )
                yield self._files[piece.file], block

    def _touched(self, shard: Shard) -> bool:
        """Notice changed states. Raises InputError for changed content."""
        found = False
        for number in {piece.file for piece in shard.pieces}:
            file = self._files[number]
            if not is_unchanged(file):
                self._files[number] = again = with_digest(file)
                if again.digest != file.digest:
                    raise changed(file)
                found = True
        return found

    def blocks(self, piece: Piece) -> Iterator[Block]:
        """Yield the rows of a piece. Raises InputError."""
        blocks = self._opened(piece.file).blocks(piece)
        if not self._set_aside:
            yield from blocks
            return
        for block in blocks:
            reasons = ((at, self._set_aside.get((piece.file, row))) for at, row in enumerate(block.rows))
            yield _without(block, {at: ("malformed", reason) for at, reason in reasons if reason})

    def remember(self, ids: Sequence[str]) -> None:
        """Add ids that an earlier run has written."""
        if self._seen_ids is not None:
            self._seen_ids.fresh(ids)

    def close(self) -> None:
        """Close the current file."""
        if self._open is not None:
            self._open.close()
        self._open, self._number = None, -1

    def _opened(self, number: int) -> OpenFile:
        if self._open is None or number != self._number:
            self.close()
            file = self._files[number]
            self._open = FORMATS[file.format].open_file(file, self._config, self._columns)
            self._number = number
        return self._open


class _Collected:
    """Rows of a shard, collected block by block."""

    def __init__(self, config: RunConfig, columns: ResolvedColumns) -> None:
        self._config = config
        self._columns = columns
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._carried: list[pa.Table] = []
        self._names = [config.columns.carry_as.get(name, name) for name in columns.carried.names]
        self._rejected: list[Rejected] = []
        self._skipped = 0

    def add(self, file: InputFile, block: Block) -> None:
        self._ids += block.ids
        self._texts += block.texts
        self._carried.append(block.carried)
        for fault in block.faults:
            self._apply_policy(file, fault)

    def documents(self, shard: Shard) -> Documents:
        rows = len(self._ids) + len(self._rejected) + self._skipped
        if rows != shard.rows:
            raise ConservationError(f"shard {shard.ordinal} has {shard.rows} rows, but gave {rows}")
        return Documents(
            ids=self._ids,
            texts=self._texts,
            # Where no columns are carried, a table without columns, and so without rows.
            carried=self._table().rename_columns(self._names),
            rejected=self._rejected,
            rows_read=rows,
            rows_skipped=self._skipped,
        )

    def _table(self) -> pa.Table:
        # Arrow makes no empty column of some nested types, so an empty table only where there is no block.
        return pa.concat_tables(self._carried) if self._carried else self._columns.carried.empty_table()

    def _apply_policy(self, file: InputFile, fault: BadRow) -> None:
        # Blank lines are no rows to people, so no policy is asked.
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


def _duplicates(block: Block, fresh: Sequence[bool]) -> dict[int, tuple[str, str]]:
    return {
        at: ("duplicate_id", f'the id "{excerpt(block.ids[at])}" occurs before in this input')
        for at, is_fresh in enumerate(fresh)
        if not is_fresh
    }


def _without(block: Block, faulty: Mapping[int, tuple[str, str]]) -> Block:
    """Move good rows to the faults, with kind and reason."""
    good = [at for at in range(len(block.rows)) if at not in faulty]
    faults = [BadRow(block.rows[at], *why, block.ids[at], excerpt(block.texts[at])) for at, why in faulty.items()]
    return Block(
        rows=[block.rows[at] for at in good],
        ids=[block.ids[at] for at in good],
        texts=[block.texts[at] for at in good],
        carried=take(block.carried, good),
        faults=sorted(block.faults + faults, key=lambda fault: fault.row),
    )


def _failure(file: InputFile, fault: BadRow) -> InputError:
    return InputError(
        f"{file.path}, row {fault.row + 1}: {fault.reason}; mend it, or set"
        f' rows.{fault.kind} = "quarantine" to set such rows aside'
    )
