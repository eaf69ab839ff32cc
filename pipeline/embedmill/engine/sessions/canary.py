"""Canaries: known texts that a session embeds before real work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedmill.base.records import Batch, Bucket, Canaries, FloatArray, IntArray, Model, Tokens
from embedmill.engine.catalogue.cpu import CPU
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.sessions.options import plan_session
from embedmill.engine.sessions.session import Session

DoubleArray = npt.NDArray[np.float64]

# Where shapes are free, so many canaries of about one length run together: more would mostly compute padding.
_ROWS = 2
# Of a reference session's vectors in a batch to the same texts alone.
LEAST_COSINE = CPU.precisions["fp32"].floor


def canary_cosine(run: Callable[[Tokens, Batch], FloatArray], canaries: Canaries, bucket: Bucket | None) -> float:
    """Return the least cosine of vectors from `run` to references.

    1 without canaries; NaN where a vector is not finite, or no canary fits the fixed shape of `bucket`.
    """
    cosines = [
        cosines_of(run(canaries.tokens, batch), canaries.vectors[batch.rows])
        for batch in _batches(canaries.tokens.lengths, bucket)
    ]
    if not cosines:
        return 1.0 if len(canaries.vectors) == 0 else float("nan")
    return float(np.min(np.concatenate(cosines)))


def reference_session(model: Model) -> Session:
    """Open a model's float32 graph on the CPU. Raises DeviceError."""
    return Session(plan_session(model, CPU, "fp32", threads=usable_cores()), CPU, pad_id=model.pad_id)


def reference_vectors(model: Model, tokens: Tokens) -> FloatArray:
    """Compute texts on the CPU, each alone: float32 [texts, dim]."""
    return vectors_alone(reference_session(model), tokens)


def vectors_alone(session: Session, tokens: Tokens) -> FloatArray:
    """Compute texts one by one: float32 [texts, dim]. Raises DeviceError."""
    # Alone, so that no padding and no other text can touch a vector.
    batches = [Batch(rows=np.array([row]), size=1, sequence=int(length)) for row, length in enumerate(tokens.lengths)]
    return np.concatenate([session.run(tokens, batch) for batch in batches])


def _batches(lengths: IntArray, bucket: Bucket | None) -> list[Batch]:
    order = np.argsort(lengths, kind="stable")
    if bucket is None:
        parts = [order[start : start + _ROWS] for start in range(0, len(order), _ROWS)]
        return [Batch(rows=part, size=len(part), sequence=int(lengths[part].max())) for part in parts]
    order = order[lengths[order] <= bucket.sequence]
    starts = range(0, len(order), bucket.rows)
    return [
        Batch(rows=order[start : start + bucket.rows], size=bucket.rows, sequence=bucket.sequence) for start in starts
    ]


def cosines_of(found: FloatArray, known: FloatArray) -> DoubleArray:
    """Return cosines by row: float64 [texts], NaN where not finite."""
    left, right = found.astype(np.float64), known.astype(np.float64)
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    with np.errstate(invalid="ignore"):
        # The floor keeps a vector of zeros at cosine 0 instead of 0 / 0.
        cosines: DoubleArray = (left * right).sum(axis=1) / np.maximum(lengths, 1e-300)
    return cosines
