"""Random devices with jobs for them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from msgspec import structs

from embedmill.base.records import Bucket, IntArray, Packing
from embedmill.tune.search import Limits, Mode, Space, ladder_buckets, powers_of_two
from tests.support.exhaustive import bucket_peak, choice_peak
from tests.support.tuner_devices import ALLOCATORS, MIB, Job, Need, Speed

# What runs untuned: four times the smallest budget; a sixteenth of the largest bucket. So it is in `tune.space`.
_DEFAULT_TOKENS = 512


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """Between `low` and `high`, every octave as likely."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def random_lengths(random: np.random.Generator, longest: int) -> IntArray:
    """Short, long, mixed or equal texts; their longest has `longest` tokens."""
    count, kind = int(random.integers(400, 1500)), int(random.integers(4))
    if kind == 0:
        lengths = random.lognormal(np.log(longest / 8), 0.8, count)
    elif kind == 1:
        lengths = random.uniform(3, longest, count)
    elif kind == 2:
        lengths = np.where(
            random.random(count) < 0.5, random.normal(20, 5, count), random.normal(0.8 * longest, 40, count)
        )
    else:
        lengths = random.normal(0.4 * longest, 3, count)
    return np.append(np.clip(lengths, 3, longest), longest).astype(np.int64)


def random_speed(random: np.random.Generator, *, fixed: bool, cores: int) -> Speed:
    """A device between a slow CPU and a fast GPU."""
    flat = not fixed and random.random() < 0.5
    rate = log_uniform(random, 3e3, 3e4) if flat else log_uniform(random, 2e4, 1e6)
    token_s = 1.0 / rate
    octaves = random.choice(np.arange(6, 17), 2, replace=False)
    slow = {int(octave): float(random.uniform(1.05, 1.25)) for octave in octaves} if random.random() < 0.4 else {}
    return Speed(
        launch_s=token_s * log_uniform(random, 5, 60) if flat else token_s * log_uniform(random, 30, 2000),
        token_s=token_s,
        score_s=token_s / log_uniform(random, 500, 5000),
        saturation_tokens=0.0 if flat or random.random() < 0.5 else log_uniform(random, 64, 2048),
        cache_tokens=log_uniform(random, 1024, 32768),
        cache_factor=float(random.choice([1.0, 1.05, 1.2])),
        tile_rows=int(random.choice([1, 1, 1, 4, 8])) if fixed else 1,
        slow=slow,
        cores=cores,
        stream_gain=float(random.uniform(0.6, 1.0)),
        thread_gain=float(random.uniform(0.6, 1.0)),
        in_flight_gain=float(random.uniform(0.4, 1.05)),
        half_factor=float(random.uniform(0.45, 1.2)),
        open_s=log_uniform(random, 0.05, 2.0) if fixed else log_uniform(random, 0.05, 0.5),
        compile_s=log_uniform(random, 1e-3, 0.5) if fixed else log_uniform(random, 1e-5, 1e-3),
    )


def random_need(random: np.random.Generator) -> Need:
    """Weights of 20 to 600 MiB and activations from 10 to 200 KiB for each token."""
    token = log_uniform(random, 10, 200) * 1024
    return Need(
        fixed=log_uniform(random, 20, 600) * MIB,
        lane=log_uniform(random, 0.5, 20) * MIB,
        token=token,
        score=token / log_uniform(random, 200, 4000),
        allocator=ALLOCATORS[int(random.integers(len(ALLOCATORS)))],
        step=log_uniform(random, 2, 256) * MIB,
        second_run=float(random.choice([1.0, 1.0, random.uniform(1.0, 1.35)])),
    )


def random_job(seed: int, *, small: bool = False, room: tuple[float, float] = (4.0, 60.0)) -> Job:
    """A device and a job on it. The ceiling is between so many times what the smallest batch needs."""
    random = np.random.default_rng(seed)
    fixed, cores = bool(random.random() < 0.5), int(random.choice([2, 4, 8]))
    longest = int(random.choice([128, 256, 512]))
    lengths, speed, need = (
        random_lengths(random, longest),
        random_speed(random, fixed=fixed, cores=cores),
        random_need(random),
    )
    job = Job(
        speed=speed,
        need=need,
        space=_space(random, fixed=fixed, cores=cores, longest=longest, small=small),
        lengths=lengths,
        limits=Limits(ceiling_bytes=None),
        hidden_bytes=math.inf,
    )
    modes = tuple(
        structs.replace(mode, floor_bytes=math.ceil(_smallest(job, mode) * random.uniform(1.0, 1.5)))
        for mode in job.space.modes
    )
    limits = Limits(
        ceiling_bytes=int(modes[0].floor_bytes * log_uniform(random, *room)),
        expected_tokens=int(log_uniform(random, 300, 20000) / speed.token_s),
        # About what `embedmill tune` takes by default.
        time_s=8.0 if small else 90.0 if fixed else 30.0,
    )
    return structs.replace(job, space=structs.replace(job.space, modes=modes), limits=limits)


def _space(random: np.random.Generator, *, fixed: bool, cores: int, longest: int, small: bool) -> Space:
    modes = tuple(_modes(random, fixed=fixed, cores=cores, small=small))
    if not fixed:
        budgets = powers_of_two(128, 4096 if small else 16384)
        return Space(modes=modes, budgets_tokens=budgets, default=Packing(budget_tokens=_DEFAULT_TOKENS))
    sequences = (64,) if small else (32, 64, 128, 256)
    most_tokens = 8192 if small else 16384
    buckets = ladder_buckets(sequences, longest=longest, most_rows=256, most_tokens=most_tokens)
    return Space(modes=modes, buckets=buckets, default=_default_ladder(buckets))


def _default_ladder(buckets: tuple[Bucket, ...]) -> Packing:
    """Of each sequence the bucket that fills the default's budget, as the catalogue's ladders do."""
    within = [bucket for bucket in buckets if bucket.rows * bucket.sequence <= _DEFAULT_TOKENS * 2]
    return Packing(
        budget_tokens=_DEFAULT_TOKENS * 2,
        buckets=tuple({bucket.sequence: bucket for bucket in within}.values()),
    )


def _modes(random: np.random.Generator, *, fixed: bool, cores: int, small: bool) -> Iterator[Mode]:
    precisions = ["fp32", "fp16"] if random.random() < 0.4 else ["fp32"]
    for precision in precisions:
        if fixed:
            for in_flight in (1, 2):
                yield Mode(precision=precision, streams=1, threads=1, in_flight=in_flight, floor_bytes=0)
        else:
            for streams in powers_of_two(1, cores)[:: -1 if not small else -2]:
                yield Mode(precision=precision, streams=streams, threads=cores // streams, floor_bytes=0)


def _smallest(job: Job, mode: Mode) -> float:
    if job.space.buckets:
        return bucket_peak(job, mode, Bucket(rows=1, sequence=max(bucket.sequence for bucket in job.space.buckets)))
    return choice_peak(job, mode, Packing(budget_tokens=min(job.space.budgets_tokens)))
