"""Windows of tokens over one text, for chunks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from embedmill.base.records import IntArray

# Windows that are tried at once, at first; as many more whenever all fit.
_WINDOWS = 4
_SOLID = re.compile(r"\S")


class Plan(NamedTuple):
    """Places where a text may be cut; arrays int64."""

    edges: IntArray  # rising: 0, starts of tokens that share no character with others, length of the text
    counts: IntArray  # tokens before each edge, rising
    words: IntArray  # those edges where a word begins, 0, length of the text


class Window(NamedTuple):
    """Characters of a chunk, with white space behind."""

    start: int
    stop: int
    before: int  # from here on no window before has the text


# The chunk of a text of white space that does not fit.
_EMPTY = Window(0, 0, 0)


class Windows:
    """Windows over one text, each as long as may be."""

    def __init__(self, text: str, plan: Plan, *, room: int, overlap: int, characters: int) -> None:
        """Allow `room` tokens of the plan and `characters` per window."""
        self._text = text
        self._edges, self._counts, self._words = plan
        self._room = room
        self._overlap = overlap
        self._characters = characters
        fits = self._counts[-1] <= room and len(text) <= characters
        self._next: Window | None = Window(0, len(text), 0) if fits else self._from(0, 0) or _EMPTY
        self._tried: list[Window] = []
        self._ahead = _WINDOWS
        self._excess = 1

    def propose(self) -> list[tuple[int, int]]:
        """Return (start, stop) of chunks to try next.

        The list is empty at the end of the text.
        """
        self._tried = list(islice(self._following(), self._ahead))
        return [self._span(window) for window in self._tried]

    def settle(self, fits: Sequence[bool]) -> int:
        """Accept proposed chunks up to the first too long one.

        That one is shortened and proposed next. Returns how many are accepted. A single character always is.
        """
        for number, (window, fit) in enumerate(zip(self._tried, fits, strict=True)):
            if not fit and (shorter := self._shorter(window)):
                self._next = shorter
                # A text with one chunk too long may have more: few are tried ahead.
                self._ahead, self._excess = 1, 2 * self._excess
                return number
            self._excess = 1
        self._next = self._after(self._tried[-1])
        self._ahead += _WINDOWS
        return len(fits)

    def _following(self) -> Iterator[Window]:
        window = self._next
        while window is not None:
            yield window
            window = self._after(window)

    def _after(self, window: Window) -> Window | None:
        return self._from(self._overlapped(window), window.stop)

    def _from(self, start: int, before: int) -> Window | None:
        """Return the longest window from `start`; None at the end.

        The stop is at a word if one begins after `before`.
        """
        start, before = self._solid(start), self._solid(before)
        if before == len(self._text):
            return None
        tokens = self._counts[self._edges.searchsorted(start, "right") - 1] + self._room
        edge = min(
            int(self._counts.searchsorted(tokens, "right")),
            int(self._edges.searchsorted(start + self._characters, "right")),
        )
        stop = int(self._edges[edge - 1])
        if stop <= before:
            stop = self._edge_after(before)
        return Window(start, self._word_start(stop, above=before), before)

    def _solid(self, position: int) -> int:
        """Skip white space from `position` on."""
        found = _SOLID.search(self._text, position)
        return found.start() if found else len(self._text)

    def _overlapped(self, window: Window) -> int:
        """Return the start of the next window, preferably a word's."""
        if not self._overlap:
            return window.stop
        tokens = self._counts[self._edges.searchsorted(window.stop)] - self._overlap
        edge = int(self._edges[max(int(self._counts.searchsorted(tokens, "right")) - 1, 0)])
        start = min(max(edge, self._edge_after(window.start)), window.stop)
        return self._word_start(start, above=window.start)

    def _shorter(self, window: Window) -> Window | None:
        """Return a shorter window, None for a single character."""
        if self._is_whole(window):
            window = window._replace(start=self._solid(0), before=self._solid(0))
            if window.start == window.stop:
                return _EMPTY
        start, stop, before = window
        end = int(self._edges.searchsorted(stop))
        edge = self._edge_of(int(self._counts[end]) - self._excess)
        if start < before:
            # Half of the new tokens may go; after that, the overlap gives way.
            least = self._edge_after(before, tokens=max((self._room - self._overlap) // 2, 1))
            if edge < least:
                return Window(self._later(start, before), stop, before)
            return Window(start, self._word_start(edge, above=least - 1), before)
        if edge > start:
            return Window(start, self._word_start(edge, above=start), before)
        return Window(start, start + (stop - start) // 2, before) if stop - start > 1 else None

    def _later(self, start: int, before: int) -> int:
        """Return a later start, preferably a word's, up to `before`."""
        edge = min(self._edge_after(start, tokens=self._excess), before)
        word = int(self._words[self._words.searchsorted(edge)])
        return word if word <= before else edge

    def _word_start(self, edge: int, *, above: int) -> int:
        """Find the last word start in (above, edge], else `edge`."""
        word = int(self._words[self._words.searchsorted(edge, "right") - 1])
        return word if word > above else edge

    def _edge_of(self, tokens: int) -> int:
        """Return the last edge after at most `tokens` tokens."""
        return int(self._edges[max(int(self._counts.searchsorted(tokens, "right")) - 1, 0)])

    def _edge_after(self, position: int, *, tokens: int = 1) -> int:
        """Return the first edge at least `tokens` tokens after `position`."""
        at = int(self._edges.searchsorted(position, "right")) - 1
        edge = int(self._counts.searchsorted(self._counts[at] + tokens))
        return int(self._edges[min(edge, len(self._edges) - 1)])

    def _is_whole(self, window: Window) -> bool:
        return window.start == 0 and window.stop == len(self._text)

    def _span(self, window: Window) -> tuple[int, int]:
        """Return (start, stop) of the chunk; a whole text unstripped."""
        start, stop, _ = window
        return (start, stop) if self._is_whole(window) else (start, start + len(self._text[start:stop].rstrip()))


def plan(pieces: Iterable[tuple[str, Sequence[tuple[int, int]]]]) -> Plan:
    """Plan the cuts of a text.

    `pieces` are parts of the text, each with the (start, stop) of its tokens.
    """
    parts = [Plan(*(np.zeros(1, np.int64),) * 3)]
    characters = tokens = 0
    for piece, spans in pieces:
        # A piece without tokens may be cut all the same, for control characters may fill megabytes.
        spans = spans or [(0, len(piece))]
        flat = np.fromiter(chain.from_iterable(spans), np.int64, 2 * len(spans))
        edges, counts, words = _edges(piece, flat.reshape(-1, 2))
        parts.append(Plan(edges + characters, counts + tokens, words + characters))
        characters += len(piece)
        tokens += len(spans)
    # The first token may begin behind white space.
    if len(parts) > 1:
        parts[1] = Plan(parts[1].edges[1:], parts[1].counts[1:], parts[1].words)
    parts.append(Plan(np.array([characters]), np.array([tokens]), np.array([characters])))
    return Plan(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _edges(piece: str, spans: IntArray) -> Plan:
    """Return the plan of one piece.

    `spans` is int64 [tokens, 2].
    """
    # Several tokens may share a character, as the bytes of an emoji do, or have none.
    starts, stops = np.maximum.accumulate(spans, axis=0).T
    starts = np.minimum(starts, len(piece) - 1)
    before = np.concatenate([[0], stops[:-1]])
    own = (starts >= before) & (starts > np.concatenate([[-1], starts[:-1]]))
    edges = starts[own]
    # Tokens hold the white space before them, or leave it out.
    words = edges > before[own]
    words[~words] = [piece[edge].isspace() for edge in edges[~words].tolist()]
    return Plan(edges, np.flatnonzero(own), edges[words])
