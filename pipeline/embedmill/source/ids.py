"""Finds ids that occurred before, in 8 bytes per id."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from embedmill.base.records import BoolArray

    Hashes = npt.NDArray[np.uint64]


class SeenIds:
    """The ids of a job so far, as 64-bit BLAKE2b hashes in a few sorted arrays.

    Arrays are merged so that each is at least twice as long as the next: n ids make at most log2(n)
    arrays, and each hash is copied at most log2(n) times (a log-structured merge).

    Two different ids have the same hash with probability n**2 / 2**65 among n ids (the birthday bound):
    3e-8 for a million, 3e-4 for a hundred million. The second would be taken for a duplicate, and be
    accounted for as one.
    """

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def fresh(self, ids: Sequence[str]) -> BoolArray:
        """Which ids were not there before, bool [n]; they are now. An id given twice is fresh once."""
        hashes = _hashes(ids)
        distinct, first = np.unique(hashes, return_index=True)
        new = np.ones(len(distinct), np.bool_)
        for run in self._runs:
            new &= ~_contains(run, distinct)
        self._add(distinct[new])
        fresh = np.zeros(len(ids), np.bool_)
        fresh[first[new]] = True
        return fresh

    def _add(self, run: Hashes) -> None:
        if not len(run):
            return
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            run.sort(kind="stable")
        self._runs.append(run)


def _hashes(ids: Sequence[str]) -> Hashes:
    return np.frombuffer(b"".join(blake2b(id.encode(), digest_size=8).digest() for id in ids), np.uint64)


def _contains(run: Hashes, hashes: Hashes) -> BoolArray:
    places = np.searchsorted(run, hashes)
    places[places == len(run)] = 0
    found: BoolArray = run[places] == hashes
    return found
