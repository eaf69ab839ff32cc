"""Preparation: documents to passages, to tokens, to batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from msgspec import structs

from embedmill.base.config import TextTable
from embedmill.base.errors import ConfigError
from embedmill.base.records import Documents, IntArray, Model, Packing, Prepared, Shard, Tokenised, Work
from embedmill.batch.chunk import Chunker, whole
from embedmill.batch.pack import distinct, pack
from embedmill.batch.tokenise import Tokeniser
from embedmill.batch.tokens import take


class Tokenisation:
    """Chunker and tokenizer of a job."""

    def __init__(self, model: Model, text: TextTable) -> None:
        """Load both. Raises ConfigError for too long chunks, ModelError."""
        if text.chunk_tokens > model.max_tokens:
            raise ConfigError(
                f"`text.chunk_tokens` = {text.chunk_tokens}, but {model.name} takes {model.max_tokens} at most"
            )
        self._tokeniser = Tokeniser.of(model)
        self._chunker: Chunker | None = None
        if text.chunk_tokens:
            self._chunker = Chunker(
                model.path(model.tokenizer),
                chunk_tokens=text.chunk_tokens,
                overlap=text.chunk_overlap,
                prompt=model.prompt,
                lowercase=model.lowercase,
            )

    def tokenise(self, texts: Sequence[str], *, between: Callable[[], None] = lambda: None) -> Tokenised:
        """Chunk and tokenise texts, identical passages once.

        `between` is called now and then, and what it raises ends the work.
        """
        if self._chunker is not None:
            passages, tokens = self._chunker.cut(texts, between=between)
            hashes, first, number = _distinct(passages.texts)
            tokens = take(tokens, first)
        else:
            passages = whole(texts)
            hashes, first, number = _distinct(passages.texts)
            tokens = self._tokeniser.encode([passages.texts[row] for row in first], between=between)
        # The texts are not needed any more, and a prepared shard may wait in memory for long.
        passages = structs.replace(passages, texts=[])
        return Tokenised(passages=passages, hashes=hashes, number=number, tokens=tokens)


def _distinct(texts: list[str]) -> tuple[list[str], list[int], IntArray]:
    """Return hashes, first rows of distinct texts, and numbers."""
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    first, number = distinct(hashes)
    return hashes, first.tolist(), number


def packed(shard: Shard, documents: Documents, tokenised: Tokenised, packing: Packing) -> Prepared:
    """Pack a tokenised shard into batches."""
    batches = pack(tokenised.tokens.lengths, packing)
    return Prepared(
        shard=shard,
        documents=documents,
        passages=tokenised.passages,
        hashes=tokenised.hashes,
        number=tokenised.number,
        work=Work(tokens=tokenised.tokens, batches=batches),
    )
