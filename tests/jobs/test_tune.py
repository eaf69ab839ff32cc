"""How a run makes its batches: what was found by trials before, what a short tuning finds now, or the catalogue's."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from embedmill.base.config import EngineTable, RunConfig
from embedmill.base.errors import ConfigError, InputError, OutputError
from embedmill.base.records import IntArray, Model
from embedmill.base.results import Tuning
from embedmill.batch.tokens import Sample
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.engine.target import Target
from embedmill.jobs.tune import tune
from embedmill.report.tuning import tuning_summary
from embedmill.tune import job as tune_module
from embedmill.tune.batches import Settings, note_rate, settings_for
from embedmill.tune.kept import disturbed, drifted, kept_tunings, outgrown
from embedmill.tune.search import OUT_OF_MEMORY, Limits, Observation, Pick, Space, Trial, find_pick
from embedmill.tune.search.sweep import idle
from tests.support.fake_devices import device_of
from tests.support.jobs import make_config
from tests.support.works import CPU, ladder_of, model, tokens_of

MODEL = model()
LONG = 10**9
ENGINE = EngineTable(provider="cpu", precision="fp32")


def sample(texts: int = 400, tokens: int = 8, rows: int = 400) -> Sample:
    return Sample(tokens=tokens_of([[2] * tokens] * texts), rows=rows)


def target(device: Device | None = None) -> Target:
    return Target(provider=CPU, precision="fp32", device=device, chosen="asked for")


LADDERED = structs.replace(CPU, name="moon", shapes=ladder_of(8, 16, budget_tokens=64), runs="one")


class Machine:
    """A machine whose rate is highest at one budget; it takes the place of `Measurer`."""

    def __init__(self, *, best: int = 512, tokens_per_s: float = 2e4) -> None:
        self.best, self.rate = best, tokens_per_s
        self.trials: list[Trial] = []
        self.breaks = self.full = self.full_later = False
        self.jitter, self.slope = 0.0, 0.3
        self.processor_share: float | None = None
        self.peak_bytes = 1 << 20

    def __call__(self, *_: object) -> Machine:
        return self

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def observe(self, trial: Trial) -> Observation:
        self.trials.append(trial)
        if self.breaks:
            return Observation(seconds=0.1, failure="the driver said no")
        if self.full or (self.full_later and len(self.trials) > 2):
            return Observation(seconds=0.1, failure=OUT_OF_MEMORY)
        distance = abs(math.log2(trial.knobs.budget_tokens / self.best))
        seconds = trial.padded_tokens / self.rate * (1 + self.slope * distance) / trial.knobs.mode.streams
        seconds *= idle(trial.batches, trial.knobs.mode.streams)
        # The first two trials say how fast the device is.
        seconds *= 1 + self.jitter * math.sin(len(self.trials) * 7.0) * (len(self.trials) > 2)
        share = self.processor_share
        return Observation(seconds=seconds, open_seconds=0.01, peak_bytes=self.peak_bytes, processor_share=share)


@pytest.fixture
def machine(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(tune_module, "Measurer", machine)
    monkeypatch.setattr("embedmill.tune.space.usable_cores", lambda: 2)
    return machine


def settled(
    *, rows: int = LONG, engine: EngineTable = ENGINE, read: Callable[[], Sample] = sample, of: Model = MODEL
) -> Settings:
    return settings_for(of, engine, target(), read, rows=rows, chunked=False)


def no_sample() -> Sample:
    pytest.fail("texts were read to tune with")


def without_pairs(space: Space, lengths: IntArray, limits: Limits, observe: Callable[[Trial], Observation]) -> Pick:
    """A tuning that has no time left for one pair."""
    found = find_pick(space, lengths, limits, observe)
    return structs.replace(found, verdict="not compared", tokens_per_s=0.0, seconds=0.8 * limits.time_s)


class TestRun:
    def test_a_long_run_tunes_and_the_next_one_uses_what_was_found(self, machine: Machine) -> None:
        found = settled()
        assert found.spec.packing.budget_tokens == 512
        assert (found.spec.streams, found.spec.threads) == (2, 1)
        assert found.tuning is not None
        assert len(found.tuning.trials) > 4
        machine.trials.clear()
        assert settled().spec.packing == found.spec.packing
        assert machine.trials == []

    def test_what_gains_over_the_default_is_used_and_the_gain_is_kept(self, machine: Machine) -> None:
        machine.best = 2048
        found = settled()
        assert found.spec.packing.budget_tokens == 2048
        assert found.tuning is not None
        assert found.tuning.verdict == "faster"
        assert found.tuning.gain == pytest.approx(1.6, rel=0.1)
        assert found.tuning.gain == statistics.median(found.tuning.gain_pairs)

    def test_what_does_not_gain_is_dropped_for_the_default_and_not_looked_for_again(self, machine: Machine) -> None:
        machine.best, machine.slope = 2048, 0.002
        found = settled()
        assert (found.spec.packing.budget_tokens, found.spec.streams, found.spec.threads) == (512, 2, 1)
        assert found.tuning is not None
        assert found.tuning.verdict == "no gain"
        assert found.tuning.gain == pytest.approx(1.0, abs=0.02)
        machine.trials.clear()
        assert settled().tuning == found.tuning
        assert machine.trials == []

    def test_where_the_default_is_the_best_there_is_no_gain_to_state(self, machine: Machine) -> None:
        found = settled().tuning
        assert found is not None
        assert (found.verdict, found.gain, found.gain_pairs) == ("default", None, [])

    def test_a_short_run_without_anything_kept_reads_no_texts(self, machine: Machine) -> None:
        assert settled(rows=1000, read=no_sample).tuning is None

    def test_a_short_run_uses_what_was_kept(self, machine: Machine) -> None:
        found = settled()
        assert settled(rows=10).tuning == found.tuning

    def test_tuning_takes_a_fiftieth_of_the_run_at_most(self, machine: Machine) -> None:
        # What never repeats itself is never settled, so that only the time ends it.
        machine.rate, machine.jitter = 1e4, 0.4
        expected_s = 10.0 * 60
        found = settled(rows=int(expected_s * 2e4 / 8))
        assert found.tuning is not None
        assert found.tuning.seconds < 0.02 * expected_s * 1.1

    def test_a_run_too_short_to_find_anything_in_a_fiftieth_of_it_is_not_tuned(self, machine: Machine) -> None:
        machine.rate = 1e6
        assert settled(rows=200_000).tuning is None
        assert len(machine.trials) == 2
        assert kept_tunings() == []

    @pytest.mark.parametrize(("provider", "expected_s"), [(CPU, 27), (LADDERED, 90)], ids=["any", "fixed"])
    def test_fixed_shapes_get_more_time(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch, provider: Provider, expected_s: float
    ) -> None:
        """Each of them has a session to open."""
        given: list[float] = []

        def timed(space: Space, lengths: IntArray, limits: Limits, observe: Callable[[Trial], Observation]) -> Pick:
            given.append(limits.time_s)
            return find_pick(space, lengths, limits, observe)

        monkeypatch.setattr(tune_module, "find_pick", timed)
        on = structs.replace(target(), provider=provider)
        settings_for(MODEL, ENGINE, on, sample, rows=100_000_000, chunked=False)
        assert given == [expected_s]

    def test_chunks_count_for_what_they_are(self, machine: Machine) -> None:
        rows, each = 1000, 20_000
        read = partial(sample, texts=each // 8 * 2, rows=2)
        found = settings_for(MODEL, ENGINE, target(), read, rows=rows, chunked=True)
        assert found.tuning is not None

    def test_texts_of_other_lengths_are_tuned_for_themselves(self, machine: Machine) -> None:
        settled()
        machine.trials.clear()
        settled(read=lambda: sample(tokens=20))
        assert machine.trials != []
        assert len(kept_tunings()) == 2

    @pytest.mark.parametrize(
        "engine",
        [
            structs.replace(ENGINE, tune=False),
            structs.replace(ENGINE, budget_tokens=256, streams=1, threads=1),
        ],
    )
    def test_nothing_is_tuned_where_the_user_leaves_nothing_open(self, machine: Machine, engine: EngineTable) -> None:
        found = settled(engine=engine, read=no_sample)
        assert found.tuning is None

    def test_what_the_user_set_stays(self, machine: Machine) -> None:
        assert settled(engine=structs.replace(ENGINE, streams=1, threads=2)).spec.streams == 1
        assert settled(engine=structs.replace(ENGINE, budget_tokens=300)).spec.packing.budget_tokens == 300
        assert {trial.knobs.mode.streams for trial in machine.trials[:3]} == {1}

    def test_emulated_devices_are_not_tuned(self, machine: Machine) -> None:
        emulated = target(device_of(0, emulated=True))
        found = settings_for(MODEL, ENGINE, emulated, no_sample, rows=LONG, chunked=False)
        assert found.tuning is None

    @pytest.mark.parametrize("trouble", ["breaks", "full", "full_later"])
    def test_where_no_trial_works_the_run_goes_on_as_the_catalogue_says(self, machine: Machine, trouble: str) -> None:
        setattr(machine, trouble, True)
        assert settled().spec.packing.budget_tokens == 512
        assert kept_tunings() == []


class TestKept:
    def test_a_record_that_was_never_compared_with_the_default_is_quietly_made_anew(
        self, machine: Machine, caplog: pytest.LogCaptureFixture
    ) -> None:
        kept = settled().kept
        assert kept is not None
        new = {"verdict", "gain", "gain_pairs"}
        old = {name: value for name, value in json.loads(kept.read_bytes()).items() if name not in new}
        kept.write_text(json.dumps(old))
        machine.trials.clear()
        assert settled().tuning is not None
        assert machine.trials != []
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
        assert kept_tunings()[0].verdict == "default"

    def test_a_record_without_its_conditions_is_shown_all_the_same(self, machine: Machine) -> None:
        tuning = settled().tuning
        assert tuning is not None
        assert tuning_summary(structs.replace(tuning, holds_for={})).startswith("unknown, unknown fp32: ")

    @pytest.mark.parametrize("words", [b"", b"{", b'{"made": 3}', b"\xff\xfe"])
    def test_a_damaged_file_is_passed_over_with_a_warning_and_made_anew(
        self, machine: Machine, words: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        kept = settled().kept
        assert kept is not None
        kept.write_bytes(words)
        machine.trials.clear()
        assert settled().spec.packing.budget_tokens == 512
        assert machine.trials != []
        assert str(kept) in caplog.text
        assert json.loads(kept.read_bytes())["packing"]["budget_tokens"] == 512

    @pytest.mark.parametrize(
        "changes",
        [
            {"precision": "fp7"},
            {"streams": -1},
            {"threads": 10**6},
            {"in_flight": 0},
            {"packing": {"budget_tokens": 10**12}},
            {"packing": {"budget_tokens": 0}},
            {"packing": {"budget_tokens": 512, "buckets": [{"rows": 1 << 30, "sequence": 1 << 30}]}},
        ],
        ids=str,
    )
    def test_settings_that_no_tuning_finds_are_ignored_with_a_warning(
        self, machine: Machine, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A record may be damaged, or someone else's: a run with 10^6 threads takes the machine down."""
        kept = settled().kept
        assert kept is not None
        kept.write_text(json.dumps(json.loads(kept.read_bytes()) | changes))
        found = settled(rows=10)
        assert found.tuning is None
        assert found.spec.packing.budget_tokens == 512
        assert f"{kept} holds settings that no tuning here finds" in caplog.text

    def test_runs_that_are_twice_much_slower_than_was_found_lead_to_another_tuning(self, machine: Machine) -> None:
        for _ in range(2):
            found = settled()
            assert found.tuning is not None
            half = int(found.tuning.tokens_per_s * 50 / 2)
            note_rate(found, tokens=half, busy_s=100)
        [kept] = kept_tunings()
        assert kept.rates == pytest.approx([kept.tokens_per_s / 2] * 2, rel=1e-3)
        machine.best = 2048
        machine.trials.clear()
        assert settled().spec.packing.budget_tokens == 2048
        assert machine.trials != []

    @pytest.mark.parametrize("shares", [[], [0.5], [0.5, 1.0], [0.9, 0.8], [0.5, 2.0]])
    def test_one_slow_run_says_nothing(self, machine: Machine, shares: list[float]) -> None:
        assert not drifted(self.with_rates(shares))

    @pytest.mark.parametrize("shares", [[1.0, 0.5, 0.6], [2.0, 1.5]])
    def test_two_that_agree_do(self, machine: Machine, shares: list[float]) -> None:
        assert drifted(self.with_rates(shares))

    def with_rates(self, shares: list[float]) -> Tuning:
        """A tuning after runs at these shares of its rate."""
        found = settled().tuning
        assert found is not None
        return structs.replace(found, rates=[share * found.tokens_per_s for share in shares])

    def test_where_nothing_was_compared_the_first_run_sets_the_rate(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tune_module, "find_pick", without_pairs)
        found = settled()
        machine.trials.clear()
        for tokens in (100_000, 90_000, 110_000, 50_000, 50_000):
            assert found.spec.packing.budget_tokens == 512
            assert machine.trials == []
            note_rate(found, tokens=tokens, busy_s=100)
            found = settled()
        assert machine.trials != []

    def test_a_record_whose_rate_is_unknown_has_not_drifted(self, machine: Machine) -> None:
        assert not drifted(structs.replace(self.with_rates([1.0, 1.1]), tokens_per_s=0.0))

    def test_where_nothing_was_compared_a_run_with_more_time_tunes_once_more(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The default has 40,000 tokens/s: a fiftieth of this run is 12 s, of the longer one more than all 27 s.
        short = 600 * 40_000 // 8
        machine.best = 2048
        machine.slope = 0.0
        monkeypatch.setattr(tune_module, "find_pick", without_pairs)
        note_rate(settled(rows=short), tokens=2_000_000, busy_s=100)
        machine.trials.clear()
        assert settled(rows=short).tuning is not None
        assert machine.trials == []
        machine.slope = 0.3
        monkeypatch.setattr(tune_module, "find_pick", find_pick)
        found = settled().tuning
        assert found is not None
        assert (found.verdict, found.packing.budget_tokens) == ("faster", 2048)

    def test_a_short_run_leaves_no_rate(self, machine: Machine) -> None:
        found = settled()
        note_rate(found, tokens=100, busy_s=3)
        assert kept_tunings()[0].rates == []

    @pytest.mark.parametrize(
        ("peak", "before", "now", "expected"),
        [
            (100, 1000, 1000, False),
            (100, 1000, 100, False),
            (100, 1000, 99, True),
            (100, 400, 9000, False),
            (100, 399, 799, True),
            (100, 399, 798, False),
            (100, 1000, None, False),
            (None, 300, 9000, False),
            (100, None, 9000, False),
        ],
    )
    def test_another_memory_is_another_question(
        self, machine: Machine, peak: int | None, before: int | None, now: int | None, expected: bool
    ) -> None:
        found = settled().tuning
        assert found is not None
        assert outgrown(structs.replace(found, peak_bytes=peak, ceiling_bytes=before), now) == expected

    def test_a_tuning_that_had_to_be_small_is_made_anew_when_there_is_memory(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tune_module, "ceiling", lambda *_: 300 << 20)
        machine.peak_bytes = 80 << 20
        found = settled()
        assert found.tuning is not None
        machine.trials.clear()
        assert settled().tuning == found.tuning
        assert machine.trials == []
        monkeypatch.setattr(tune_module, "ceiling", lambda *_: 900 << 20)
        assert settled().tuning != found.tuning
        assert len(machine.trials) > 4

    @pytest.mark.parametrize(("share", "used"), [(None, True), (0.95, True), (0.6, False)])
    def test_what_was_found_on_a_busy_machine_is_not_used(
        self, machine: Machine, share: float | None, used: bool
    ) -> None:
        machine.processor_share = share
        assert (settled().tuning is not None) == used
        [kept] = kept_tunings()
        assert disturbed(kept) != used

    def test_another_driver_model_or_fraction_is_another_key(
        self, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = {settled().kept, settled(engine=structs.replace(ENGINE, memory_fraction=0.5)).kept}
        paths |= {settled(of=structs.replace(MODEL, identity="1" * 64)).kept}
        monkeypatch.setattr(tune_module, "availability_of", lambda *_: type("Stands", (), {"words": "onnxruntime 99"}))
        paths |= {settled().kept}
        assert len(paths) == 4


class TestCommand:
    """The real thing: sessions of a tiny model in processes of their own."""

    def config(self, tmp_path: Path, tiny_model: Path, rows: list[dict[str, Any]]) -> RunConfig:
        path = tmp_path / "a.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return make_config(tiny_model, path, tmp_path / "out", engine={"provider": "cpu", "threads": 1})

    def test_it_finds_keeps_and_draws(self, empty_home: Path, tmp_path: Path, tiny_model: Path) -> None:
        rows = [{"id": str(number), "text": "river stone " * (number % 9 + 1)} for number in range(300)]
        found = tune(self.config(tmp_path, tiny_model, rows), time_s=1.5, chart=tmp_path / "chart.html")
        assert found.tokens_per_s > 100
        assert found.peak_bytes is not None
        assert found.ceiling_bytes is not None
        assert all(trial.failure is None for trial in found.trials)
        assert kept_tunings() == [found]
        page = (tmp_path / "chart.html").read_text()
        assert page.count("<svg") == 3

    def test_without_texts_there_is_nothing_to_tune_with(
        self, empty_home: Path, tmp_path: Path, tiny_model: Path
    ) -> None:
        with pytest.raises(InputError, match="no rows that can be embedded"):
            tune(self.config(tmp_path, tiny_model, [{"id": "1", "text": ""}]))

    def test_a_chart_in_no_folder_is_told_before_anything_runs(self, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot be written"):
            tune(RunConfig(), chart=tmp_path / "nowhere" / "chart.html")

    def test_nothing_left_to_tune_is_told(self, empty_home: Path, tmp_path: Path, tiny_model: Path) -> None:
        config = self.config(tmp_path, tiny_model, [{"id": "1", "text": "river"}])
        engine = structs.replace(config.engine, streams=1, budget_tokens=64)
        with pytest.raises(ConfigError, match="leaves nothing to tune"):
            tune(structs.replace(config, engine=engine))
