"""The conductor of tuning: how a target's batches are made and run, found by trials or taken from what was kept."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct, structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.home import home_folder, key_of, read_record, write_record
from embedmill.base.records import Model, Tokens
from embedmill.base.results import TrialFacts, Tuning
from embedmill.batch.tokens import Sample, length_profile, thinned, with_longest
from embedmill.engine.availability import availability_of
from embedmill.engine.engine import Engine
from embedmill.engine.machine.adapters import driver_versions
from embedmill.engine.machine.machine import Machine, this_machine
from embedmill.engine.machine.memory import ceiling
from embedmill.engine.memory.attach import probe_of
from embedmill.engine.runners.start import runner_for
from embedmill.engine.spec import EngineSpec, spec_for
from embedmill.engine.target import Target, packing_for
from embedmill.tune.kept import holds
from embedmill.tune.search import Limits, Observation, Pick, Trial, Tuner
from embedmill.tune.space import default_trial, is_open, space_of
from embedmill.tune.trial import Measurer

LOG = logging.getLogger("embedmill")
# Texts that trials run: the largest batches are filled a few times.
SAMPLE_TEXTS = 8192
# Fixed shapes have a session each: to open them and to tell them apart takes longer.
TIME_S, LADDER_TIME_S = 27.0, 90.0
# A run tunes for at most this part of the time it is expected to take, and not at all where that is too short to
# find anything; below so many tokens it is not even asked how long that would be.
_SHARE, _LEAST_S, _WORTH_TOKENS = 0.02, 4.0, 1_000_000
# What is run first, to see how fast the device is: about so many padded tokens.
_FIRST_TOKENS = 16_384
_RUNS_KEPT = 8
# Below so many seconds of computing a run says little of the rate.
_RATE_S = 20.0


class Settings(Struct, frozen=True, kw_only=True):
    """How a run makes and runs its batches; `tuning` and the file `kept` that holds it where it was found by trials."""

    spec: EngineSpec
    tuning: Tuning | None = None
    kept: Path | None = None


def settings_for(
    model: Model, engine: EngineTable, target: Target, sample: Callable[[], Sample], *, rows: int, chunked: bool
) -> Settings:
    """What a run of so many rows uses: what was kept for texts like its own; where nothing was and the run is long,
    what a short tuning finds; else what the catalogue says. `rows` 0: nothing is measured."""
    default = Settings(spec=spec_for(model, target, engine))
    emulated = target.device is not None and target.device.emulated
    if not engine.tune or emulated or not is_open(space_of(target, model, engine)):
        return default
    most = math.inf if chunked and rows else rows * model.max_tokens
    if not _folder(model, engine, target).is_dir() and most < _WORTH_TOKENS:
        return default
    seen = sample()
    tokens = seen.tokens
    if not len(tokens.truncated):
        return default
    job = TuningJob(model, engine, target, tokens)
    tuning = read_record(job.path, Tuning)
    if tuning is not None and holds(tuning, job.ceiling_bytes):
        return job.settings(tuning)
    expected = seen.tokens_of(rows)
    found = _tuned_briefly(job, expected) if expected >= _WORTH_TOKENS else None
    if found is None:
        return default
    write_record(job.path, found)
    return job.settings(found) if holds(found, job.ceiling_bytes) else default


def engine_of(settings: Settings, notify: Callable[[str], None]) -> Engine:
    """Open the engine; `notify` gets a sentence when batches shrink or grow, and when a device was lost."""
    return Engine(runner_for(settings.spec, notify=notify))


def note_rate(settings: Settings, *, tokens: int, busy_s: float) -> None:
    """Remember how fast a run embedded with what was tuned, so that a change of the machine is noticed."""
    streams = settings.spec.streams
    if settings.tuning is None or settings.kept is None or busy_s < _RATE_S * streams:
        return
    rates = [*settings.tuning.rates, tokens * streams / busy_s][-_RUNS_KEPT:]
    write_record(settings.kept, structs.replace(settings.tuning, rates=rates))


class TuningJob:
    """What is tuned: a target, a model and texts like those of the job."""

    def __init__(self, model: Model, engine: EngineTable, target: Target, tokens: Tokens) -> None:
        self._model, self._engine, self._target = model, engine, target
        self.profile = length_profile(tokens.lengths)
        self.tokens = with_longest(thinned(tokens, SAMPLE_TEXTS), model.max_tokens)
        self.space = space_of(target, model, engine)
        self.time_s = LADDER_TIME_S if self.space.buckets else TIME_S
        self.path = _folder(model, engine, target) / f"{self.profile}.json"
        reading = probe_of(target).read()
        self.ceiling_bytes = ceiling(reading, engine.memory_fraction)

    def measurer(self) -> Measurer:
        """What runs its trials."""
        return Measurer(spec_for(self._model, self._target, self._engine), self.tokens)

    def tuned(
        self,
        measurer: Measurer,
        limits: Limits,
        *,
        seed: int = 0,
        say: Callable[[int, TrialFacts], None] = lambda number, trial: None,
    ) -> Tuning:
        """Run trials to their end; `say` gets the number and the facts of each.

        Raises DeviceError where no batch fits.
        """
        tuner = Tuner(self.space, self.tokens.lengths, limits, seed=seed)
        while (trial := tuner.next()) is not None:
            observation = measurer.observe(trial)
            say(trial.number + 1, trial_facts(trial, observation))
            tuner.observe(trial, observation)
        return self._record(tuner.pick(), limits)

    def settings(self, tuning: Tuning) -> Settings:
        """What a run uses of it."""
        precision = next(mode.precision for mode in self.space.modes if mode.precision == tuning.precision)
        spec = structs.replace(
            spec_for(self._model, structs.replace(self._target, precision=precision), self._engine, tuning.packing),
            streams=tuning.streams,
            threads=tuning.threads,
            in_flight=tuning.in_flight,
        )
        return Settings(spec=spec, tuning=tuning, kept=self.path)

    def tokens_per_s(self, measurer: Measurer) -> float:
        """Useful tokens per second of the catalogue's own choice, 0.0 where it fails; the first of two runs is cold."""
        packing = packing_for(self._target.provider, self._model, self._engine)
        trial = default_trial(self.space, packing, self.tokens.lengths, _FIRST_TOKENS)
        seen = [measurer.observe(trial) for _ in range(2)][-1]
        return 0.0 if seen.failure is not None else trial.useful_tokens / max(seen.seconds, 1e-9)

    def _record(self, pick: Pick, limits: Limits) -> Tuning:
        shares = [observed.observation.processor_share for observed in pick.observations]
        known = [share for share in shares if share is not None]
        return Tuning(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            holds_for={**_holds_for(self._model, self._engine, self._target, this_machine()), "lengths": self.profile},
            precision=pick.mode.precision,
            streams=pick.mode.streams,
            threads=pick.mode.threads,
            in_flight=pick.mode.in_flight,
            packing=pick.packing,
            tokens_per_s=pick.tokens_per_s,
            peak_bytes=pick.peak_bytes,
            ceiling_bytes=limits.ceiling_bytes,
            unproven=pick.unproven,
            seconds=pick.seconds,
            ended=pick.ended,
            trials=[trial_facts(observed.trial, observed.observation) for observed in pick.observations],
            processor_share=statistics.median(known) if known else None,
        )


def _tuned_briefly(job: TuningJob, expected_tokens: int) -> Tuning | None:
    """Tune for a small part of the time that the run will take; None where that is too little, or nothing works."""
    with job.measurer() as measurer:
        rate = job.tokens_per_s(measurer)
        time_s = min(job.time_s, _SHARE * expected_tokens / rate) if rate else 0.0
        if time_s < _LEAST_S:
            return None
        LOG.info("tuning for %.0f s: the run may take %.0f min", time_s, expected_tokens / rate / 60)
        try:
            return job.tuned(
                measurer, Limits(ceiling_bytes=job.ceiling_bytes, time_s=time_s, expected_tokens=expected_tokens)
            )
        except DeviceError as error:
            LOG.warning("tuning found nothing (%s); the run goes on with what the catalogue says", error)
            return None


def _folder(model: Model, engine: EngineTable, target: Target) -> Path:
    """Where tunings are kept that differ in the lengths of the texts only."""
    return home_folder() / "tuned" / key_of(_holds_for(model, engine, target, this_machine()))


def _holds_for(model: Model, engine: EngineTable, target: Target, machine: Machine) -> dict[str, str]:
    """What a tuning depends on besides the lengths of the texts."""
    provider, device = target.provider, target.device
    # Windows gives an adapter another LUID at each start.
    metadata = {} if device is None else {key: value for key, value in device.metadata.items() if key != "LUID"}
    options = structs.asdict(engine) | {"provider": provider.name, "device": None, "tune": True, "timeout_s": 0}
    return {
        "provider": provider.name,
        "device": "" if device is None else f"{device.name} {json.dumps(metadata, sort_keys=True)}",
        "drivers": "" if provider.runs == "cores" else ", ".join(driver_versions(machine)),
        "version": availability_of(provider, machine).words,
        "model": f"{model.name} {model.identity}",
        "processor": f"{machine.cpu}, {machine.usable_cores} cores",
        "options": json.dumps(options, sort_keys=True),
    }


def trial_facts(trial: Trial, seen: Observation) -> TrialFacts:
    """A trial and what came of it, for people and files."""
    return TrialFacts(
        precision=trial.knobs.mode.precision,
        streams=trial.knobs.mode.streams,
        threads=trial.knobs.mode.threads,
        in_flight=trial.knobs.mode.in_flight,
        budget_tokens=trial.knobs.budget_tokens,
        bucket=trial.knobs.bucket,
        useful_tokens=trial.useful_tokens,
        padded_tokens=trial.padded_tokens,
        seconds=seen.seconds,
        open_seconds=seen.open_seconds,
        peak_bytes=seen.peak_bytes,
        predicted_peak_bytes=trial.predicted_peak_bytes,
        failure=seen.failure,
    )
