"""From a shard of the plan to work for the engine, and from its vectors to the rows that are written.

The conductor's two hands: `Preparation` calls source, text and batch, `output_table` calls sink.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
from msgspec import Struct

from embedmill import source
from embedmill.base.config import RunConfig
from embedmill.base.errors import ConfigError, InputError
from embedmill.base.records import (
    Documents,
    Entry,
    FloatArray,
    InputFile,
    IntArray,
    Model,
    Packing,
    Passages,
    Shard,
    Work,
)
from embedmill.batch.chunk import Chunker, whole
from embedmill.batch.pack import distinct, pack, padded_tokens
from embedmill.batch.tokenise import Tokeniser
from embedmill.sink.shard import shard_table


class Prepared(Struct, frozen=True, kw_only=True):
    """A shard, read and packed: passage i has the text hash `hashes[i]` and the vector `number[i]` of the work.

    Identical texts of a shard share one vector, so the work may hold fewer texts than there are passages.
    """

    shard: Shard
    documents: Documents
    passages: Passages
    hashes: list[str]
    number: IntArray
    work: Work


class Preparation:
    """Reads, chunks, tokenises and packs shards; a context manager that holds the open input file."""

    def __init__(self, config: RunConfig, model: Model, files: list[InputFile], packing: Packing) -> None:
        """Raises InputError for missing columns, ConfigError for chunks longer than the model takes."""
        text = config.text
        if text.chunk_tokens > model.max_tokens:
            raise ConfigError(
                f"`text.chunk_tokens` = {text.chunk_tokens}, but {model.name} takes {model.max_tokens} at most"
            )
        path = Path(model.tokenizer)
        self._tokeniser = Tokeniser(path, max_tokens=model.max_tokens, prompt=model.prompt, lowercase=model.lowercase)
        self._cut: Callable[[list[str]], Passages] = whole
        if text.chunk_tokens:
            self._cut = Chunker(
                path,
                chunk_tokens=text.chunk_tokens,
                overlap=text.chunk_overlap,
                prompt=model.prompt,
                lowercase=model.lowercase,
            ).cut
        self._packing = packing
        self.columns = source.resolve(files, config)
        self.finds_duplicates = self.columns.id is not None and config.rows.duplicate_id != "keep"
        self._reader = source.Reader(files, config, self.columns)

    def __enter__(self) -> Self:
        self._reader.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.__exit__(kind, error, trace)

    def remember(self, ids: Iterable[str]) -> None:
        """Ids of committed shards, so that a later row with one of them counts as a duplicate."""
        self._reader.remember(list(ids))

    def prepare(self, shard: Shard, *, between: Callable[[], None] = lambda: None) -> Prepared:
        """One shard; `between` is called now and then, and what it raises ends the work.

        Raises InputError if the file cannot be read or a row is bad under a `fail` policy.
        """
        documents = self._reader.read(shard)
        between()
        passages = self._cut(documents.texts)
        hashes = [hashlib.sha256(text.encode()).hexdigest() for text in passages.texts]
        first, number = distinct(hashes)
        tokens = self._tokeniser.encode([passages.texts[row] for row in first], between=between)
        batches = pack(tokens.lengths, self._packing)
        return Prepared(
            shard=shard,
            documents=documents,
            passages=passages,
            hashes=hashes,
            number=number,
            work=Work(tokens=tokens, batches=batches),
        )


def output_table(prepared: Prepared, vectors: FloatArray, *, chunked: bool) -> pa.Table:
    """The rows to write, in input order: `vectors` is float32 [distinct texts, dim]."""
    passages, tokens, number = prepared.passages, prepared.work.tokens, prepared.number
    document = pa.array(passages.document)
    columns: dict[str, Any] = {
        "id": pa.array(prepared.documents.ids, pa.string()).take(document),
        "n_tokens": pa.array(tokens.lengths[number], pa.int32()),
        "truncated": pa.array(tokens.truncated[number]),
        "text_hash": pa.array(prepared.hashes, pa.string()),
    }
    if chunked:
        columns |= {
            "chunk": pa.array(passages.chunk, pa.int32()),
            "char_start": pa.array(passages.start, pa.int64()),
            "char_end": pa.array(passages.stop, pa.int64()),
        }
    carried = prepared.documents.carried
    return shard_table(columns, vectors[number], carried.take(document) if carried.num_columns else carried)


def entry_of(prepared: Prepared, *, identity: str) -> Entry:
    """What the ledger says of a shard; the sizes and hashes of its files are still open."""
    documents, tokens = prepared.documents, prepared.work.tokens
    return Entry(
        ordinal=prepared.shard.ordinal,
        file=f"part-{prepared.shard.ordinal:05d}.parquet",
        pieces=prepared.shard.pieces,
        rows_read=documents.rows_read,
        rows_written=len(documents.ids),
        rows_quarantined=len(documents.rejected),
        rows_skipped=documents.rows_skipped,
        vectors=len(prepared.number),
        tokens=int(tokens.offsets[-1]),
        padded_tokens=padded_tokens(prepared.work.batches),
        truncated=int(tokens.truncated[prepared.number].sum()),
        bytes=0,
        sha256="",
        quarantine_sha256="",
        identity=identity,
    )


def check_texts(texts: Sequence[str]) -> None:
    """Raises InputError where texts at hand are one string, or one of them is none."""
    if isinstance(texts, str):
        raise InputError("texts is one string; pass a list of strings")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{number}] is {type(text).__name__}; expected a string")
