"""Chunks of long texts: overlapping token windows, cut between words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from embedmill.base.errors import ConfigError
from embedmill.base.records import Passages
from embedmill.base.signals import checkpoint
from embedmill.batch.tokenise import beginning, load_tokenizer

# Characters per call into Rust: bounds the memory that one long text needs.
_PIECE_CHARACTERS = 1 << 16


class Chunker:
    """Chunker with windows of `chunk_tokens`, prompt and special tokens included."""

    def __init__(
        self, path: Path, *, chunk_tokens: int, overlap: int, prompt: str = "", lowercase: bool = False
    ) -> None:
        """Load the tokenizer. Raises ConfigError for windows without room."""
        self._tokenizer = load_tokenizer(path, lowercase=lowercase)
        self._overlap = overlap
        self._window = chunk_tokens - len(self._tokenizer.encode(prompt).ids)
        if self._window <= overlap:
            raise ConfigError(
                f"`text.chunk_tokens` = {chunk_tokens} leaves {max(self._window, 0)} tokens for text beside the"
                f" prompt and special tokens, with `text.chunk_overlap` = {overlap}; raise the one or lower the other"
            )

    def cut(self, texts: Sequence[str]) -> Passages:
        """Cut n texts into chunks, at least one per text."""
        cuts = [list(self._windows(text)) for text in texts]
        spans = [span for windows in cuts for span in windows]
        document = np.repeat(np.arange(len(texts)), [len(windows) for windows in cuts])
        return Passages(
            texts=[texts[owner][start:stop] for owner, (start, stop) in zip(document.tolist(), spans, strict=True)],
            document=document,
            chunk=np.array([number for windows in cuts for number in range(len(windows))], np.int64),
            start=np.array([start for start, _ in spans], np.int64),
            stop=np.array([stop for _, stop in spans], np.int64),
        )

    def _windows(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) characters of each chunk."""
        tokens = list(self._tokens(text))
        first = last = 0
        while len(tokens) - first > self._window:
            last = self._word_start(tokens, first + self._window, above=max(first, last))
            yield tokens[first][0], tokens[last - 1][1]
            first = self._word_start(tokens, max(last - self._overlap, first + 1), above=first)
        yield (tokens[first][0], tokens[-1][1]) if first else (0, len(text))

    def _word_start(self, tokens: list[tuple[int, int]], position: int, *, above: int) -> int:
        """Find the last word start in (above, position], else `position`."""
        for candidate in range(position, above, -1):
            if tokens[candidate][0] != tokens[candidate - 1][1]:
                return candidate
        return position

    def _tokens(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) characters of each token, without special tokens."""
        base = 0
        while base < len(text):
            checkpoint()
            piece = beginning(text[base : base + _PIECE_CHARACTERS + 1], _PIECE_CHARACTERS)
            for start, stop in self._tokenizer.encode(piece, add_special_tokens=False).offsets:
                yield base + start, base + stop
            base += len(piece)


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
