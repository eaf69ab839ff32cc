"""Nonnegative least squares for a handful of columns."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_RIDGE = 1e-9
_EQUAL = 1e-7


def nonnegative_fit(columns: Floats, values: Floats) -> Floats:
    """Return coefficients >= 0 that fit columns to values.

    Columns [n, c] and values [n] give coefficients [c] of least squares, errors relative to the values. No more of them
    differ from 0 than there are distinct rows; of equal fits the one on earlier columns is taken.
    By trying every set of columns, since the solution is the plain least-squares one on the columns that it
    uses (Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23).
    """
    relative = columns / values[:, None]
    scale = np.maximum(relative.max(axis=0), 1e-300)
    scaled = relative / scale
    # A trace of a ridge, so that columns which say the same do not stop the solver.
    products, sums = scaled.T @ scaled + _RIDGE * np.eye(len(scale)), scaled.sum(axis=0)
    best, least = np.zeros(len(scale)), np.inf
    for size in range(1, min(len(scale), len(np.unique(values)), len(values)) + 1):
        for chosen in map(list, combinations(range(len(scale)), size)):
            found = np.linalg.solve(products[np.ix_(chosen, chosen)], sums[chosen])
            error = float(len(values) - found @ sums[chosen])
            if error < least - _EQUAL and (found >= 0).all():
                best, least = np.zeros(len(scale)), error
                best[chosen] = found
    coefficients: Floats = best / scale
    return coefficients
