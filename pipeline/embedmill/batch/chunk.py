"""Chunks of long texts: overlapping token windows, cut between words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from msgspec import Struct

from embedmill.base.errors import ConfigError
from embedmill.base.records import Passages, TokenArray, Tokens
from embedmill.batch.tokenise import (
    SLICE_CHARACTERS,
    Tokeniser,
    beginning,
    encoded,
    load_tokenizer,
    most_characters,
    slices,
)
from embedmill.batch.windows import Windows, plan

# Characters of a text that are tokenised as one, to plan its windows.
_PIECE_CHARACTERS = 1 << 15
# Characters of the texts that are cut at once: a plan takes up to 24 bytes per character.
_GROUP_CHARACTERS = 1 << 20


class _Chunk(Struct, frozen=True):
    start: int
    stop: int
    ids: TokenArray
    truncated: bool


class Chunker:
    """Chunker with windows of `chunk_tokens`, prompt and special tokens included."""

    def __init__(
        self, path: Path, *, chunk_tokens: int, overlap: int, prompt: str = "", lowercase: bool = False
    ) -> None:
        """Load the tokenizer. Raises ConfigError for windows without room."""
        self._tokenizer = load_tokenizer(path, lowercase=lowercase)
        self._tokeniser = Tokeniser(path, max_tokens=chunk_tokens, prompt=prompt, lowercase=lowercase)
        self._overlap = overlap
        self._room = chunk_tokens - len(encoded(self._tokenizer, [prompt], prompt=prompt)[0])
        # Half of it, since a chunk must be looked at whole.
        self._characters = most_characters(chunk_tokens) // 2
        if self._room <= overlap:
            raise ConfigError(
                f"`text.chunk_tokens` = {chunk_tokens} leaves {max(self._room, 0)} tokens for text beside the"
                f" prompt and special tokens, with `text.chunk_overlap` = {overlap}; raise the one or lower the other"
            )

    def cut(self, texts: Sequence[str], *, between: Callable[[], None] = lambda: None) -> tuple[Passages, Tokens]:
        """Cut n texts into chunks, and encode the chunks.

        A text has at least one chunk. A chunk is truncated only where one character has more tokens than the window.
        `between` is called now and then; what it raises ends the work.
        """
        cuts = [chunks for group in slices(texts, _GROUP_CHARACTERS) for chunks in self._cut_group(group, between)]
        document = np.repeat(np.arange(len(texts)), [len(chunks) for chunks in cuts])
        every = list(chain.from_iterable(cuts))
        passages = Passages(
            texts=[
                texts[owner][chunk.start : chunk.stop] for owner, chunk in zip(document.tolist(), every, strict=True)
            ],
            document=document,
            chunk=np.array([number for chunks in cuts for number in range(len(chunks))], np.int64),
            start=np.array([chunk.start for chunk in every], np.int64),
            stop=np.array([chunk.stop for chunk in every], np.int64),
        )
        tokens = Tokens(
            ids=np.concatenate([np.empty(0, np.int32), *(chunk.ids for chunk in every)]),
            offsets=np.cumsum([0, *(len(chunk.ids) for chunk in every)], dtype=np.int64),
            truncated=np.array([chunk.truncated for chunk in every], np.bool_),
        )
        return passages, tokens

    def _cut_group(self, texts: Sequence[str], between: Callable[[], None]) -> list[list[_Chunk]]:
        """Return the chunks of each text."""
        windows = list(self._windows(texts, between))
        chunks: list[list[_Chunk]] = [[] for _ in texts]
        proposed = {number: one.propose() for number, one in enumerate(windows)}
        # A chunk may have more tokens than its part of the text has: each is counted as the model gets it.
        while proposed:
            parts = [texts[number][start:stop] for number, spans in proposed.items() for start, stop in spans]
            tokens = self._tokeniser.encode(parts, between=between)
            first = 0
            for number, spans in proposed.items():
                fits = ~tokens.truncated[first : first + len(spans)]
                accepted = spans[: windows[number].settle(fits.tolist())]
                chunks[number] += [_chunk(span, tokens, row) for row, span in enumerate(accepted, first)]
                first += len(spans)
            proposed = {number: spans for number in proposed if (spans := windows[number].propose())}
        return chunks

    def _windows(self, texts: Sequence[str], between: Callable[[], None]) -> Iterator[Windows]:
        pieces = [list(_pieces(text)) for text in texts]
        offsets = self._offsets(chain.from_iterable(pieces), between)
        for text, own in zip(texts, pieces, strict=True):
            yield Windows(
                text,
                plan((piece, next(offsets)) for piece in own),
                room=self._room,
                overlap=self._overlap,
                characters=self._characters,
            )

    def _offsets(self, pieces: Iterable[str], between: Callable[[], None]) -> Iterator[list[tuple[int, int]]]:
        """Yield (start, stop) characters of the tokens, by piece."""
        for part in slices(pieces, SLICE_CHARACTERS):
            between()
            for encoding in encoded(self._tokenizer, part, offsets=True):
                yield encoding.offsets


def _chunk(span: tuple[int, int], tokens: Tokens, row: int) -> _Chunk:
    ids = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
    return _Chunk(*span, ids, bool(tokens.truncated[row]))


def _pieces(text: str) -> Iterator[str]:
    first = 0
    while first < len(text):
        piece = beginning(text[first : first + _PIECE_CHARACTERS + 1], _PIECE_CHARACTERS, _PIECE_CHARACTERS)
        yield piece
        first += len(piece)


def whole(texts: Sequence[str]) -> Passages:
    """Return each text as one passage, uncut."""
    count = len(texts)
    return Passages(
        texts=list(texts),
        document=np.arange(count),
        chunk=np.zeros(count, np.int64),
        start=np.zeros(count, np.int64),
        stop=np.array([len(text) for text in texts], np.int64),
    )
