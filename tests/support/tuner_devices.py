"""Simulated devices: what a batch costs and needs on them.

Times: a launch, something per padded token and per score of attention; saturation (small batches cost what
larger ones do), caches that overflow, sizes rounded up to whole tiles, single sizes that meet a slow kernel, streams
that help or hurt, sessions to open and shapes to compile. Memory: exact, in steps, in powers of two of all or of
the activations, in regions that double; more in the second run than in the first; and what a session took it keeps.
"""

from __future__ import annotations

import heapq
import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from embedmill.base.records import IntArray
from embedmill.tune.search import OUT_OF_MEMORY, Knobs, Limits, Mode, Observation, Pick, Space, Trial, find_pick

Floats = npt.NDArray[np.float64]
Allocator = Literal["exact", "steps", "powers", "power of activations", "doubling regions", "first chunk"]
ALLOCATORS: tuple[Allocator, ...] = (
    "exact",
    "steps",
    "powers",
    "power of activations",
    "doubling regions",
    "first chunk",
)
MIB = float(1 << 20)
NOISE = 0.10


class Speed(Struct, frozen=True, kw_only=True):
    """Seconds: per launch, padded token and score; what departs from them."""

    launch_s: float
    token_s: float
    score_s: float
    saturation_tokens: float
    cache_tokens: float
    cache_factor: float
    tile_rows: int
    slow: dict[int, float]
    cores: int
    stream_gain: float
    thread_gain: float
    in_flight_gain: float
    half_factor: float
    open_s: float
    compile_s: float


class Need(Struct, frozen=True, kw_only=True):
    """Bytes: fixed, per lane, padded token and score; how they are rounded and grow."""

    fixed: float
    lane: float
    token: float
    score: float
    allocator: Allocator
    step: float
    second_run: float


class Job(Struct, frozen=True, kw_only=True):
    """A device, what may be chosen on it, the texts, and the limits."""

    speed: Speed
    need: Need
    space: Space
    lengths: IntArray
    limits: Limits
    hidden_bytes: float


class Outcome(Struct, kw_only=True):
    """What tuning did to a device: its pick, runs that memory did not suffice for, and those above the ceiling."""

    pick: Pick
    refused: int = 0
    breaches: int = 0
    repeated: int = 0


def batch_seconds(speed: Speed, mode: Mode, rows: Floats, sequence: Floats) -> Floats:
    """Seconds that one batch takes on one stream while the others are busy too."""
    tiles = np.ceil(rows / speed.tile_rows) * speed.tile_rows
    tokens = tiles * sequence
    work = np.maximum(tokens, speed.saturation_tokens) * speed.token_s + tokens * sequence * speed.score_s
    work = work * np.where(tokens * mode.streams > speed.cache_tokens, speed.cache_factor, 1.0)
    octave = np.round(np.log2(rows * sequence)).astype(int)
    work = work * np.vectorize(lambda size: speed.slow.get(int(size), 1.0))(octave)
    workers = mode.streams * mode.threads
    busy = min(workers, speed.cores) / speed.cores
    threads = mode.threads**speed.thread_gain * min(1.0, speed.cores / workers)
    together = mode.streams**speed.stream_gain / mode.streams
    launch = speed.launch_s * (1.0 if mode.in_flight == 1 else speed.in_flight_gain)
    half = speed.half_factor if mode.precision == "fp16" else 1.0
    return np.asarray(launch + work * half / (threads * together) * (1.0 + 0.05 * (1 - busy)), np.float64)


def peak_bytes(need: Need, mode: Mode, tokens: float, scores: float, *, first: bool) -> float:
    """What a session needs at its peak, with `tokens` and `scores` in each lane."""
    half = 0.5 if mode.precision == "fp16" else 1.0
    active = mode.lanes * (need.lane + (need.token * tokens + need.score * scores) * half)
    active *= 1.0 if first else need.second_run
    fixed = need.fixed * half
    if need.allocator == "steps":
        return math.ceil((fixed + active) / need.step) * need.step
    if need.allocator == "powers":
        return 2.0 ** math.ceil(math.log2(fixed + active))
    if need.allocator == "power of activations":
        return fixed + 2.0 ** math.ceil(math.log2(active))
    if need.allocator == "doubling regions":
        return fixed + (2.0 ** math.ceil(math.log2(active / MIB + 1)) - 1) * MIB
    if need.allocator == "first chunk":
        return fixed + max(need.step, 2.0 ** math.ceil(math.log2(active)))
    return fixed + active


class Device:
    """Runs trials; counts what should not happen."""

    def __init__(self, job: Job, seed: int) -> None:
        self.job = job
        self.random = np.random.default_rng(seed)
        self.refused, self.breaches, self.seconds = 0, 0, 0.0
        self.refused_demands: list[tuple[str, float, float]] = []
        self.repeated = 0
        self._session: object = None
        self._kept = 0.0
        self._runs: dict[Knobs, int] = {}
        self._compiled: set[tuple[object, int, int]] = set()

    def run(self, trial: Trial) -> Observation:
        """A trial's time, with noise, and its peak."""
        speed, mode = self.job.speed, trial.knobs.mode
        session = (trial.knobs.session, mode.streams, mode.in_flight)
        opened = speed.open_s * float(self.random.uniform(0.9, 1.1)) if session != self._session else 0.0
        if session != self._session:
            self._session, self._kept = session, 0.0
        peak = self._peak(trial)
        self.breaches += self.job.limits.ceiling_bytes is not None and peak > self.job.limits.ceiling_bytes
        if peak > self.job.hidden_bytes:
            self.refused += 1
            self._session = None
            return Observation(open_seconds=opened, failure=OUT_OF_MEMORY)
        self._runs[trial.knobs] = self._runs.get(trial.knobs, 0) + 1
        self._kept = peak
        rows = np.array([batch.size for batch in trial.batches], np.float64)
        sequence = np.array([batch.sequence for batch in trial.batches], np.float64)
        shapes = {(session, batch.size, batch.sequence) for batch in trial.batches} - self._compiled
        self._compiled |= shapes
        seconds = makespan(batch_seconds(speed, mode, rows, sequence), mode.streams)
        seconds *= math.exp(NOISE * float(self.random.standard_normal()))
        seconds += speed.compile_s * len(shapes)
        self.seconds += seconds + opened
        return Observation(seconds=seconds, open_seconds=opened, peak_bytes=math.ceil(peak))

    def _peak(self, trial: Trial) -> float:
        heaviest = max(trial.batches, key=lambda batch: batch.size * batch.sequence)
        scores = max(batch.size * batch.sequence**2 for batch in trial.batches)
        tokens = float(heaviest.size * heaviest.sequence)
        demand = (trial.knobs.mode.precision, trial.knobs.mode.lanes * tokens, trial.knobs.mode.lanes * float(scores))
        first = trial.knobs not in self._runs
        lanes, heavy = trial.knobs.mode.lanes, sum(batch.size * batch.sequence == tokens for batch in trial.batches)
        once = first and heavy < 2 * lanes
        peak = max(self._kept, peak_bytes(self.job.need, trial.knobs.mode, tokens, float(scores), first=once))
        if first:
            self.repeated += any(
                demand[0] == other[0] and demand[1] >= other[1] and demand[2] >= other[2]
                for other in self.refused_demands
            )
        if peak > self.job.hidden_bytes:
            self.refused_demands.append(demand)
        return peak


def makespan(seconds: Floats, streams: int) -> float:
    """When the last stream ends if each takes the next batch as soon as it is free."""
    free = [0.0] * streams
    for one in seconds:
        heapq.heapreplace(free, free[0] + float(one))
    return max(free)


def tune(job: Job, seed: int) -> Outcome:
    """Tune a device to the end. Raises DeviceError as the tuner does."""
    device = Device(job, seed)
    pick = find_pick(job.space, job.lengths, job.limits, device.run)
    return Outcome(pick=pick, refused=device.refused, breaches=device.breaches, repeated=device.repeated)
