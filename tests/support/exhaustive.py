"""The true rate and peak of a choice on a simulated device, and the best that an exhaustive search finds."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product

import numpy as np

from embedmill.base.records import Batch, Bucket, Packing
from embedmill.batch.pack import pack
from embedmill.tune.search import Mode
from tests.support.tuner_devices import Job, batch_seconds, peak_bytes


def packed(job: Job, packing: Packing) -> list[Batch]:
    """The job's texts in batches."""
    return _packed(job.lengths.tobytes(), packing)


@lru_cache(maxsize=64)
def _packed(lengths: bytes, packing: Packing) -> list[Batch]:
    return pack(np.frombuffer(lengths, np.int64), packing)


def tokens_per_s(job: Job, mode: Mode, packing: Packing) -> float:
    """The true rate of a choice over the whole job, one-off seconds included."""
    total = float(job.lengths.sum())
    if packing.buckets:
        seconds, once = ladder_seconds(job, mode, packing.buckets)
    else:
        batches = packed(job, packing)
        rows = np.array([batch.size for batch in batches], np.float64)
        sequence = np.array([batch.sequence for batch in batches], np.float64)
        seconds = float(batch_seconds(job.speed, mode, rows, sequence).sum()) / mode.streams
        once = job.speed.open_s + job.speed.compile_s * len(set(zip(rows, sequence, strict=True)))
    return 1.0 / (seconds / total + once / (job.limits.expected_tokens or math.inf))


def ladder_seconds(job: Job, mode: Mode, buckets: tuple[Bucket, ...]) -> tuple[float, float]:
    """Seconds for all texts in full batches of a ladder, and those that are paid once for each session used."""
    ordered = np.sort(job.lengths)
    seconds, below = 0.0, 0
    for bucket in buckets:
        upto = int(np.searchsorted(ordered, bucket.sequence, side="right"))
        each = batch_seconds(job.speed, mode, np.array([float(bucket.rows)]), np.array([float(bucket.sequence)]))
        seconds += (upto - below) / bucket.rows * float(each[0])
        below = upto
    return seconds, (job.speed.open_s + job.speed.compile_s) * len(used(job, buckets))


def best_tokens_per_s(job: Job) -> float:
    """The best rate of all choices whose true peak keeps the ceiling."""
    ceiling = min(job.limits.ceiling_bytes or math.inf, job.hidden_bytes)
    return max(
        _best_ladder(job, mode, ceiling) if job.space.buckets else _best_budget(job, mode, ceiling)
        for mode in job.space.modes
    )


def choice_peak(job: Job, mode: Mode, packing: Packing) -> float:
    """The true peak of a choice: all sessions of a ladder together."""
    if packing.buckets:
        return sum(bucket_peak(job, mode, bucket) for bucket in used(job, packing.buckets))
    batches = packed(job, packing)
    tokens = max(batch.size * batch.sequence for batch in batches)
    scores = max(batch.size * batch.sequence**2 for batch in batches)
    return peak_bytes(job.need, mode, tokens, scores, first=False)


def used(job: Job, buckets: tuple[Bucket, ...]) -> list[Bucket]:
    """The buckets that texts go to: a session is opened when its first batch comes."""
    places = np.searchsorted([bucket.sequence for bucket in buckets], job.lengths)
    return [bucket for place, bucket in enumerate(buckets) if (places == place).any()]


def bucket_peak(job: Job, mode: Mode, bucket: Bucket) -> float:
    """The true peak of one bucket's session."""
    tokens = float(bucket.rows * bucket.sequence)
    return peak_bytes(job.need, mode, tokens, tokens * bucket.sequence, first=False)


def _best_budget(job: Job, mode: Mode, ceiling: float) -> float:
    packings = [Packing(budget_tokens=budget) for budget in job.space.budgets_tokens]
    fitting = [packing for packing in packings if choice_peak(job, mode, packing) <= ceiling]
    return max((tokens_per_s(job, mode, packing) for packing in fitting), default=0.0)


def _best_ladder(job: Job, mode: Mode, ceiling: float) -> float:
    """Every ladder there is: for each sequence no bucket or one of its heights, for the longest one always one."""
    heights = sorted({bucket.sequence for bucket in job.space.buckets})
    options: list[list[tuple[float, float, float]]] = []
    for height in heights:
        found = []
        for bucket in (bucket for bucket in job.space.buckets if bucket.sequence == height):
            each = batch_seconds(job.speed, mode, np.array([float(bucket.rows)]), np.array([float(height)]))
            found.append((bucket_peak(job, mode, bucket), float(each[0]) / bucket.rows, 1.0))
        options.append(found if height == heights[-1] else [(0.0, 0.0, 0.0), *found])
    chosen = np.array(list(product(*(range(len(option)) for option in options))))
    table = [np.array(option)[chosen[:, i]] for i, option in enumerate(options)]
    bytes_, used = sum(part[:, 0] for part in table), sum(part[:, 2] for part in table)
    ordered = np.sort(job.lengths)
    upto = np.searchsorted(ordered, heights, side="right").astype(np.float64)
    below, seconds = np.zeros(len(chosen)), np.zeros(len(chosen))
    for i, part in enumerate(table):
        seconds += np.where(part[:, 2] > 0, (upto[i] - below) * part[:, 1], 0.0)
        below = np.where(part[:, 2] > 0, upto[i], below)
    once = (job.speed.open_s + job.speed.compile_s) * used
    rate = 1.0 / (seconds / float(job.lengths.sum()) + once / (job.limits.expected_tokens or math.inf))
    return float(np.where(bytes_ <= ceiling, rate, 0.0).max())
