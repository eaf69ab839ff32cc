"""Sets of tokenised texts: joined, thinned, sampled, and as files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from embedmill.base.records import IntArray, Tokens

if TYPE_CHECKING:
    from embedmill.base.records import Tokens


class Sample(Struct, frozen=True, kw_only=True):
    """Texts of a job and the rows that they came from: chunks make more of them, repeated texts fewer."""

    tokens: Tokens
    rows: int

    def tokens_of(self, rows: int) -> int:
        """How many tokens so many rows may have."""
        return int(rows * int(self.tokens.offsets[-1]) / max(self.rows, 1))


def joined(parts: list[Tokens]) -> Tokens:
    """The texts of several sets of tokens, one after the other."""
    return Tokens(
        ids=np.concatenate([np.empty(0, np.int32), *(tokens.ids for tokens in parts)]),
        offsets=np.cumsum([0, *(length for tokens in parts for length in tokens.lengths)], dtype=np.int64),
        truncated=np.concatenate([np.empty(0, np.bool_), *(tokens.truncated for tokens in parts)]),
    )


def thinned(tokens: Tokens, most: int) -> Tokens:
    """At most `most` of the texts, evenly spread over all."""
    count = len(tokens.truncated)
    return take(tokens, np.linspace(0, count, min(count, most), endpoint=False).astype(int).tolist())


def length_profile(lengths: IntArray) -> str:
    """Median, 95th percentile and mean of texts' tokens in steps of half an octave: what a tuning holds for."""
    figures = {"p50": np.median(lengths), "p95": np.quantile(lengths, 0.95), "mean": lengths.mean()}
    return "-".join(f"{name}_{2 ** (round(2 * np.log2(max(value, 1))) / 2):.0f}" for name, value in figures.items())


def with_longest(tokens: Tokens, max_tokens: int) -> Tokens:
    """The texts and one more of as many tokens as there can be, so that trials meet what the job may: the longest of
    them over and over."""
    longest = int(tokens.lengths.argmax())
    text = tokens.ids[tokens.offsets[longest] : tokens.offsets[longest + 1]]
    return Tokens(
        ids=np.concatenate([tokens.ids, np.resize(text, max_tokens)]),
        offsets=np.append(tokens.offsets, tokens.offsets[-1] + max_tokens),
        truncated=np.append(tokens.truncated, True),
    )


def take(tokens: Tokens, rows: list[int]) -> Tokens:
    """Some of the texts."""
    import numpy as np

    from embedmill.base.records import Tokens

    parts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]] for row in rows]
    return Tokens(
        ids=np.concatenate([np.empty(0, np.int32), *parts]).astype(np.int32),
        offsets=np.cumsum([0, *map(len, parts)], dtype=np.int64),
        truncated=tokens.truncated[rows],
    )
