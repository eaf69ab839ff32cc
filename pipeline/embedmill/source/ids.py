"""Detection of duplicate ids, in 8 bytes per id."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from embedmill.base.records import BoolArray

Hashes = npt.NDArray[np.uint64]


class SeenIds:
    """Set of ids, as 64-bit BLAKE2b hashes in sorted arrays.

    Two different ids have the same hash with probability n**2 / 2**65 among n ids (the birthday bound):
    3e-8 for a million, 3e-4 for a hundred million. The second would be taken for a duplicate, and be
    accounted for as one.
    """

    def __init__(self) -> None:
        self._runs: list[Hashes] = []

    def fresh(self, ids: Sequence[str]) -> BoolArray:
        """Add ids; return a mask of the new: bool [n]."""
        # An id given twice is new once.
        hashes = _hashes(ids)
        distinct, first = np.unique(hashes, return_index=True)
        new = np.ones(len(distinct), np.bool_)
        for run in self._runs:
            new &= run.take(np.searchsorted(run, distinct), mode="clip") != distinct
        self._add(distinct[new])
        fresh = np.zeros(len(ids), np.bool_)
        fresh[first[new]] = True
        return fresh

    def _add(self, run: Hashes) -> None:
        if not len(run):
            return
        # A log-structured merge: each array is at least twice as long as the next, so n ids make at most
        # log2(n) arrays, and each hash is copied at most log2(n) times.
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = np.concatenate([self._runs.pop(), run])
            # NumPy's stable sort of 64-bit integers is Timsort: linear for two sorted halves.
            run.sort(kind="stable")
        self._runs.append(run)


def _hashes(ids: Sequence[str]) -> Hashes:
    return np.frombuffer(b"".join(blake2b(id.encode(), digest_size=8).digest() for id in ids), np.uint64)
