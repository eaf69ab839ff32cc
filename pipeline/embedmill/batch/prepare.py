"""From a shard of the plan to work for the engine, and from its vectors to the rows that are written.

The conductor's two hands: `Preparation` calls source, text and batch, `output_table` calls sink.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from embedmill.base.config import RunConfig
from embedmill.base.errors import ConfigError
from embedmill.base.records import (
    InputFile,
    Model,
    Packing,
    Passages,
    Prepared,
    Shard,
    Work,
)
from embedmill.batch.chunk import Chunker, whole
from embedmill.batch.pack import distinct, pack
from embedmill.batch.tokenise import Tokeniser
from embedmill.source import Reader, ResolvedColumns


class Preparation:
    """Reads, chunks, tokenises and packs shards; a context manager that holds the open input file."""

    def __init__(
        self, config: RunConfig, model: Model, files: list[InputFile], columns: ResolvedColumns, packing: Packing
    ) -> None:
        """Raise ConfigError for chunks longer than the model takes."""
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
        self.finds_duplicates = columns.id is not None and config.rows.duplicate_id != "keep"
        self._reader = Reader(files, config, columns)

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
