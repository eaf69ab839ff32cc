"""Sets of tokenised texts: joined, thinned and sampled."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from embedmill.base.records import IntArray, Tokens


class Sample(Struct, frozen=True, kw_only=True):
    """Distinct texts of a job, and number of input rows."""

    tokens: Tokens
    rows: int

    def tokens_of(self, rows: int) -> int:
        """Estimate the tokens of `rows` rows."""
        return int(rows * int(self.tokens.offsets[-1]) / max(self.rows, 1))


def joined(parts: list[Tokens]) -> Tokens:
    """Concatenate sets of tokens."""
    return Tokens(
        ids=np.concatenate([np.empty(0, np.int32), *(tokens.ids for tokens in parts)]),
        offsets=np.cumsum([0, *(length for tokens in parts for length in tokens.lengths)], dtype=np.int64),
        truncated=np.concatenate([np.empty(0, np.bool_), *(tokens.truncated for tokens in parts)]),
    )


def thinned(tokens: Tokens, most: int) -> Tokens:
    """Return at most `most` of the texts, evenly spread."""
    count = len(tokens.truncated)
    return take(tokens, np.linspace(0, count, min(count, most), endpoint=False).astype(int).tolist())


def take(tokens: Tokens, rows: list[int]) -> Tokens:
    """Return some of the texts."""
    parts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]] for row in rows]
    return Tokens(
        ids=np.concatenate([np.empty(0, np.int32), *parts]),
        offsets=np.cumsum([0, *map(len, parts)], dtype=np.int64),
        truncated=tokens.truncated[rows],
    )


def length_profile(lengths: IntArray) -> str:
    """Name median, 95th percentile and mean of tokens per text."""
    # In steps of half an octave: a cached tuning serves texts of about the same lengths.
    figures = {"p50": np.median(lengths), "p95": np.quantile(lengths, 0.95), "mean": lengths.mean()}
    return "-".join(f"{name}_{2 ** (round(2 * np.log2(max(value, 1))) / 2):.0f}" for name, value in figures.items())


def with_longest(tokens: Tokens, max_tokens: int) -> Tokens:
    """Add a text of `max_tokens` tokens: the longest one, repeated."""
    # A sample may miss the longest texts of a job, whose batches take the most memory.
    longest = int(tokens.lengths.argmax())
    text = tokens.ids[tokens.offsets[longest] : tokens.offsets[longest + 1]]
    return Tokens(
        ids=np.concatenate([tokens.ids, np.resize(text, max_tokens)]),
        offsets=np.append(tokens.offsets, tokens.offsets[-1] + max_tokens),
        truncated=np.append(tokens.truncated, True),
    )
