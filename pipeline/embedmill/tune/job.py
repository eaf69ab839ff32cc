"""Tuning on a device, from the measurer to the record."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.home import in_home, key_of
from embedmill.base.records import Model, Tokens
from embedmill.base.results import TrialFacts, Tuning
from embedmill.batch.tokens import length_profile, thinned, with_longest
from embedmill.engine.availability import availability_of
from embedmill.engine.machine.adapters import driver_versions
from embedmill.engine.machine.machine import this_machine
from embedmill.engine.machine.memory import ceiling
from embedmill.engine.memory.attach import probe_of
from embedmill.engine.spec import EngineSpec
from embedmill.engine.target import Target
from embedmill.tune.search import Limits, Observation, Pick, Trial, find_pick
from embedmill.tune.space import default_trial, space_of
from embedmill.tune.trial import Measurer

# Texts that trials run: the largest batches are filled a few times.
SAMPLE_TEXTS = 8192
# Fixed shapes have a session each: to open them and to tell them apart takes longer.
TIME_S, LADDER_TIME_S = 27.0, 90.0


class TuningJob:
    """Tuning of one target and model for similar texts."""

    def __init__(self, model: Model, engine: EngineTable, target: Target, tokens: Tokens) -> None:
        self._spec = EngineSpec.decide(model, target, engine)
        self._holds_for = {**settings_key(model, engine, target), "lengths": length_profile(tokens.lengths)}
        self.tokens = with_longest(thinned(tokens, SAMPLE_TEXTS), model.max_tokens)
        self.space = space_of(target, model, engine)
        self.time_s = LADDER_TIME_S if self.space.buckets else TIME_S
        self.path = tunings_folder(model, engine, target) / f"{self._holds_for['lengths']}.json"
        with closing(probe_of(target)) as probe:
            self.ceiling_bytes = ceiling(probe.read(), engine.memory_fraction)

    def measurer(self) -> Measurer:
        """Return the runner of trials."""
        return Measurer(self._spec, self.tokens)

    def tuned(
        self,
        measurer: Measurer,
        *,
        time_s: float,
        expected_tokens: int | None = None,
        say: Callable[[int, TrialFacts], None] = lambda number, trial: None,
    ) -> Tuning:
        """Run trials for about `time_s` seconds; `say` gets each.

        Raises DeviceError where no batch fits.
        """

        def observe(trial: Trial) -> Observation:
            observation = measurer.observe(trial)
            say(trial.number + 1, _trial_facts(trial, observation))
            return observation

        limits = Limits(ceiling_bytes=self.ceiling_bytes, time_s=time_s, expected_tokens=expected_tokens)
        return self._record(find_pick(self.space, self.tokens.lengths, limits, observe))

    def tokens_per_s(self, measurer: Measurer) -> float:
        """Return the default's useful tokens per second, 0.0 on failure."""
        # The first run is cold.
        trial = default_trial(self.space, self.tokens.lengths)
        observed = [measurer.observe(trial) for _ in range(2)][-1]
        return 0.0 if observed.failure is not None else trial.useful_tokens / max(observed.seconds, 1e-9)

    def _record(self, pick: Pick) -> Tuning:
        shares = [one.observation.processor_share for one in pick.observations]
        known = [share for share in shares if share is not None]
        return Tuning(
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            holds_for=self._holds_for,
            precision=pick.mode.precision,
            streams=pick.mode.streams,
            threads=pick.mode.threads,
            in_flight=pick.mode.in_flight,
            packing=pick.packing,
            tokens_per_s=pick.tokens_per_s,
            peak_bytes=pick.peak_bytes,
            ceiling_bytes=self.ceiling_bytes,
            unproven=pick.unproven,
            seconds=pick.seconds,
            ended=pick.ended,
            trials=[_trial_facts(one.trial, one.observation) for one in pick.observations],
            processor_share=statistics.median(known) if known else None,
            verdict=pick.verdict,
            gain=statistics.median(pick.gains) if pick.gains else None,
            gain_pairs=list(pick.gains),
        )


def tunings_folder(model: Model, engine: EngineTable, target: Target) -> Path:
    """Return the folder of tunings that differ in text lengths."""
    return in_home("tuned", key_of(settings_key(model, engine, target)))


def settings_key(model: Model, engine: EngineTable, target: Target) -> dict[str, str]:
    """Return what a tuning depends on besides the text lengths."""
    provider, device, machine = target.provider, target.device, this_machine()
    # Windows gives an adapter another LUID at each start.
    metadata = {} if device is None else {key: value for key, value in device.metadata.items() if key != "LUID"}
    options = structs.asdict(engine) | {"provider": provider.name, "device": None, "tune": True, "timeout_s": 0}
    # No figure depends on it.
    del options["telemetry"]
    return {
        "provider": provider.name,
        "device": "" if device is None else f"{device.name} {json.dumps(metadata, sort_keys=True)}",
        "drivers": "" if provider.runs == "cores" else ", ".join(driver_versions(machine)),
        "version": availability_of(provider, machine).words,
        "model": f"{model.name} {model.identity}",
        "processor": f"{machine.cpu}, {machine.usable_cores} cores",
        "options": json.dumps(options, sort_keys=True),
    }


def _trial_facts(trial: Trial, observation: Observation) -> TrialFacts:
    mode = trial.knobs.mode
    return TrialFacts(
        precision=mode.precision,
        streams=mode.streams,
        threads=mode.threads,
        in_flight=mode.in_flight,
        budget_tokens=trial.knobs.budget_tokens,
        bucket=trial.knobs.bucket,
        useful_tokens=trial.useful_tokens,
        padded_tokens=trial.padded_tokens,
        seconds=observation.seconds,
        open_seconds=observation.open_seconds,
        peak_bytes=observation.peak_bytes,
        predicted_peak_bytes=trial.predicted_peak_bytes,
        failure=observation.failure,
    )
