"""Batch settings of a run: tuned, or the catalogue's default."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.home import read_record, write_record
from embedmill.base.records import Model
from embedmill.base.results import Tuning
from embedmill.batch.tokens import Sample
from embedmill.engine.engine import Engine
from embedmill.engine.runners.start import runner_for
from embedmill.engine.spec import EngineSpec
from embedmill.engine.target import Target
from embedmill.tune.job import TuningJob, tunings_folder
from embedmill.tune.kept import holds, undecided
from embedmill.tune.space import is_open, offers, space_of

LOG = logging.getLogger("embedmill")
# A run tunes for at most this part of its expected time, and not at all where that is less than this part of a whole
# tuning; below so many tokens the expected time is not even measured.
_SHARE, _LEAST_PART, _WORTH_TOKENS = 0.02, 0.3, 1_000_000
_RUNS_KEPT = 8
# Below so many seconds of computing a run says little of the rate.
_RATE_S = 20.0


class Settings(Struct, frozen=True, kw_only=True):
    """Batch settings of a run, with tuning and record file."""

    spec: EngineSpec
    tuning: Tuning | None = None
    kept: Path | None = None


def settings_for(
    model: Model, engine: EngineTable, target: Target, sample: Callable[[], Sample], *, rows: int, chunked: bool
) -> Settings:
    """Return the settings of a run of so many rows.

    They come from a kept tuning for texts like its own, else from a short tuning where the run is long, else from the
    catalogue. `rows` 0: nothing is measured.
    """
    default = Settings(spec=EngineSpec.decide(model, target, engine))
    emulated = target.device is not None and target.device.emulated
    if not engine.tune or emulated or not is_open(space_of(target, model, engine)):
        return default
    most = math.inf if chunked and rows else rows * model.max_tokens
    if not tunings_folder(model, engine, target).is_dir() and most < _WORTH_TOKENS:
        return default
    sampled = sample()
    if not len(sampled.tokens.truncated):
        return default
    job = TuningJob(model, engine, target, sampled.tokens)
    tuning = read_record(job.path, Tuning)
    if tuning is not None and not offers(job.space, tuning):
        LOG.warning("%s holds settings that no tuning here finds; the file is ignored and made anew", job.path)
        tuning = None
    expected = sampled.tokens_of(rows)
    if tuning is not None and undecided(tuning, _allowed_s(job, expected, tuning.tokens_per_s)):
        tuning = None
    if tuning is not None and holds(tuning, job.ceiling_bytes):
        return _tuned(default, tuning, job.path)
    tuning = _tune_briefly(job, expected) if expected >= _WORTH_TOKENS else None
    if tuning is None:
        return default
    write_record(job.path, tuning)
    return _tuned(default, tuning, job.path) if holds(tuning, job.ceiling_bytes) else default


def engine_of(settings: Settings, notify: Callable[[str], None]) -> Engine:
    """Return an engine; `notify` gets messages about memory and losses."""
    return Engine(runner_for(settings.spec, notify=notify))


def note_rate(settings: Settings, *, tokens: int, busy_s: float) -> None:
    """Add the rate of a run, to notice changed machines."""
    streams = settings.spec.streams
    if settings.tuning is None or settings.kept is None or busy_s < _RATE_S * streams:
        return
    rates = [*settings.tuning.rates, tokens * streams / busy_s][-_RUNS_KEPT:]
    # The rate of a default that was not compared is that of its first run.
    found = settings.tuning.tokens_per_s or rates[-1]
    write_record(settings.kept, structs.replace(settings.tuning, tokens_per_s=found, rates=rates))


def _tuned(default: Settings, tuning: Tuning, kept: Path) -> Settings:
    target = default.spec.target
    precision = next(name for name in target.provider.precisions if name == tuning.precision)
    spec = structs.replace(
        default.spec,
        target=structs.replace(target, precision=precision),
        packing=tuning.packing,
        streams=tuning.streams,
        threads=tuning.threads,
        in_flight=tuning.in_flight,
    )
    return Settings(spec=spec, tuning=tuning, kept=kept)


def _allowed_s(job: TuningJob, expected_tokens: int, tokens_per_s: float) -> float:
    """Return the seconds of a run's tuning; 0.0: unknown."""
    return min(job.time_s, _SHARE * expected_tokens / tokens_per_s) if tokens_per_s else 0.0


def _tune_briefly(job: TuningJob, expected_tokens: int) -> Tuning | None:
    """Tune for a small part of the run, if possible."""
    with job.measurer() as measurer:
        rate = job.tokens_per_s(measurer)
        time_s = _allowed_s(job, expected_tokens, rate)
        if time_s < _LEAST_PART * job.time_s:
            return None
        LOG.info("tuning for %.0f s: the run may take %.0f min", time_s, expected_tokens / rate / 60)
        try:
            return job.tuned(measurer, time_s=time_s, expected_tokens=expected_tokens)
        except DeviceError as error:
            LOG.warning("tuning found nothing (%s); the run uses the catalogue's default", error)
            return None
