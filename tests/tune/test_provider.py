"""The provider of a run: the one that was asked for, or the fastest that works, measured once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.records import Model, Tokens
from embedmill.engine import target as target_module
from embedmill.engine.availability import Availability
from embedmill.engine.catalogue import find_provider
from embedmill.engine.catalogue.entry import GraphChoice, Provider
from embedmill.engine.target import Target
from embedmill.tune import provider
from embedmill.tune.provider import WORTH_MEASURING, ProviderChoice, choose_target
from embedmill.tune.trial import Measurement
from tests.support.fake_devices import device_of
from tests.support.works import CPU, model, provider_of, tokens_of

AUTO = EngineTable()
MOON = provider_of(
    precisions={
        "fp32": GraphChoice(graph="fused", floor=0.99999),
        "fp16": GraphChoice(graph="fused-fp16", floor=0.999),
    }
)
SUN = provider_of(name="sun", ort_name="SunExecutionProvider")
KNOWN = model(graphs=["fused", "fused-fp16"])


def no_sample() -> Tokens:
    pytest.fail("texts were read to measure with")


def a_sample() -> Tokens:
    return tokens_of([[2, 7, 3]])


class Machine:
    """A machine with some providers, and what trials of them would find."""

    def __init__(self) -> None:
        self.installed: dict[str, str] = {"cpu": "onnxruntime 1.30"}
        self.rates: dict[tuple[str, str], float | str] = {}
        self.devices = [device_of(0, name="Near side"), device_of(1, name="Far side")]
        self.tried: list[EngineTable] = []
        self.sampled: list[Tokens] = []

    def standing(self, provider: Provider, *_: Any) -> Availability:
        version = self.installed.get(provider.name)
        state, words = ("installed", version) if version else ("installable", "a line")
        return Availability(provider=provider.name, state=state, words=words)  # type: ignore[arg-type]

    def try_provider(self, model: Model, engine: EngineTable, tokens: Tokens, **options: Any) -> Measurement:
        assert options == {"real_only": True}
        self.tried.append(engine)
        self.sampled.append(tokens)
        found = self.rates[engine.provider, engine.precision]
        device = self.devices[-1] if engine.provider != "cpu" else None
        result = Measurement(provider=engine.provider, precision=engine.precision, device=device)
        return structs.replace(result, **({"words": found} if isinstance(found, str) else {"documents_per_s": found}))

    def find(self, name: str) -> Provider:
        return {"moon": MOON, "sun": SUN}.get(name) or find_provider(name)


@pytest.fixture
def machine(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with the CPU; moon and sun are in the catalogue."""
    stands_in = Machine()
    monkeypatch.setattr(provider, "PROVIDERS", (MOON, SUN, CPU))
    monkeypatch.setattr(provider, "find_provider", stands_in.find)
    monkeypatch.setattr(provider, "availability_of", stands_in.standing)
    monkeypatch.setattr(provider, "try_provider", stands_in.try_provider)
    monkeypatch.setattr(target_module, "require", lambda *_: None)
    monkeypatch.setattr(provider, "list_devices", lambda one, **_: stands_in.devices if one.name != "cpu" else [])
    return stands_in


@pytest.fixture
def three(machine: Machine) -> Machine:
    """Moon in both precisions, sun and CPU; moon fp16 is the fastest."""
    machine.installed |= {"moon": "lunar 1.0", "sun": "solar 1.0"}
    machine.rates = {("moon", "fp32"): 50.0, ("moon", "fp16"): 80.0, ("sun", "fp32"): 20.0, ("cpu", "fp32"): 60.0}
    return machine


def chosen(engine: EngineTable = AUTO, *, sample: Callable[[], Tokens] = a_sample, **options: Any) -> Target:
    return choose_target(options.get("known", KNOWN), engine, sample, texts=options.get("texts", WORTH_MEASURING))


class TestOne:
    def test_a_provider_that_was_asked_for_is_not_measured(self, three: Machine) -> None:
        found = chosen(EngineTable(provider="sun"), sample=no_sample)
        assert (found.label, found.chosen) == ("sun fp32 on Near side", "asked for")
        assert three.tried == []

    def test_an_unknown_one_lists_the_known_ones(self, machine: Machine) -> None:
        with pytest.raises(DeviceError, match="there is no provider 'abacus'"):
            chosen(EngineTable(provider="abacus"))

    def test_with_the_cpu_alone_nothing_is_measured_or_kept(self, machine: Machine, empty_home: Path) -> None:
        found = chosen(sample=no_sample)
        assert (found.label, found.chosen) == ("cpu fp32", "the only provider installed here")
        assert machine.tried == []
        assert not (empty_home.parent / "choices").exists()

    def test_a_precision_that_none_here_has_is_refused(self, machine: Machine) -> None:
        with pytest.raises(DeviceError, match="computes fake in fp16"):
            chosen(EngineTable(precision="fp16"))

    def test_a_device_that_the_only_provider_lacks_is_refused(self, machine: Machine) -> None:
        with pytest.raises(DeviceError, match="cpu has no device 'gpu'"):
            chosen(EngineTable(device="gpu"), sample=no_sample)


class TestSeveral:
    def test_the_fastest_is_taken_on_the_device_it_was_measured_on(self, three: Machine) -> None:
        found = chosen()
        assert (found.provider, found.precision, found.device) == (MOON, "fp16", three.devices[1])

    def test_each_precision_of_each_is_measured_on_the_users_texts(self, three: Machine) -> None:
        chosen()
        assert [(one.provider, one.precision) for one in three.tried] == [
            ("moon", "fp32"),
            ("moon", "fp16"),
            ("sun", "fp32"),
            ("cpu", "fp32"),
        ]
        assert {tuple(tokens.ids.tolist()) for tokens in three.sampled} == {(2, 7, 3)}

    def test_the_figures_are_told_and_stay_with_the_choice(
        self, three: Machine, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="embedmill"):
            found = chosen()
        figures = [
            "moon fp32 50.0 documents/s",
            "moon fp16 80.0 documents/s",
            "sun fp32 20.0 documents/s",
            "cpu fp32 60.0 documents/s",
        ]
        assert caplog.messages == [f"measured {figure}" for figure in figures]
        assert found.chosen == f"the fastest of those measured on {date.today().isoformat()}: {'; '.join(figures)}"

    def test_the_cpu_may_win(self, three: Machine) -> None:
        three.rates["cpu", "fp32"] = 90.0
        assert chosen().label == "cpu fp32"

    def test_one_that_does_not_work_is_told_and_not_taken(self, three: Machine) -> None:
        three.rates["moon", "fp16"] = "it leaves operators to the CPU"
        found = chosen()
        assert found.provider == CPU
        assert "moon fp16 does not work: it leaves operators to the CPU" in found.chosen

    def test_where_none_works_every_reason_is_told(self, three: Machine) -> None:
        three.rates = dict.fromkeys(three.rates, "no")
        three.rates["sun", "fp32"] = "its process crashed (SIGSEGV)"
        with pytest.raises(DeviceError) as refused:
            chosen()
        assert refused.value.exit_code == 5
        assert str(refused.value) == (
            "no provider works on this machine: moon fp32 does not work: no; moon fp16 does not work: no;"
            " sun fp32 does not work: its process crashed (SIGSEGV); cpu fp32 does not work: no"
        )

    def test_a_precision_that_was_asked_for_leaves_the_others_out(self, three: Machine) -> None:
        three.rates["sun", "fp16"] = 1.0
        found = chosen(EngineTable(precision="fp32"))
        assert [one.precision for one in three.tried] == ["fp32", "fp32", "fp32"]
        assert found.provider == CPU

    def test_a_graph_that_the_model_lacks_is_not_measured(self, three: Machine) -> None:
        chosen(known=model(graphs=["fused"]))
        assert ("moon", "fp16") not in [(one.provider, one.precision) for one in three.tried]

    def test_the_options_of_the_job_hold_in_its_trials(self, three: Machine) -> None:
        chosen(EngineTable(device="far", budget_tokens=99))
        assert {(one.device, one.budget_tokens) for one in three.tried} == {("far", 99)}


class TestKept:
    def test_the_second_time_nothing_is_measured(self, three: Machine) -> None:
        first = chosen()
        three.tried.clear()
        assert chosen(sample=no_sample) == first
        assert three.tried == []

    @pytest.mark.parametrize("name", ["moon", "cpu"])
    def test_another_version_is_measured_again(self, three: Machine, name: str) -> None:
        chosen()
        three.tried.clear()
        three.installed[name] = "another 2.0"
        chosen()
        assert len(three.tried) == 4

    @pytest.mark.parametrize(
        "options",
        [{"engine": EngineTable(budget_tokens=64)}, {"known": model(max_tokens=64, graphs=["fused", "fused-fp16"])}],
        ids=["options", "model"],
    )
    def test_another_job_is_measured_for_itself(self, three: Machine, options: dict[str, Any]) -> None:
        chosen()
        three.tried.clear()
        if "known" in options:
            options["known"] = structs.replace(options["known"], identity="1" * 64)
        chosen(**options)
        assert len(three.tried) == 4

    def kept(self, empty_home: Path) -> Path:
        [path] = (empty_home.parent / "choices").iterdir()
        return path

    @pytest.mark.parametrize("content", [b"", b"{", b'{"measured": 7}', b"\xff\x00"], ids=repr)
    def test_a_damaged_file_is_measured_again(self, three: Machine, empty_home: Path, content: bytes) -> None:
        first = chosen()
        self.kept(empty_home).write_bytes(content)
        assert chosen() == first
        assert len(three.tried) == 8
        assert chosen(sample=no_sample) == first

    def test_what_works_is_kept_for_good(self, three: Machine, empty_home: Path) -> None:
        chosen()
        self.age(empty_home)
        assert "2020-02-02" in chosen(sample=no_sample).chosen

    def test_what_failed_is_tried_again_another_day(self, three: Machine, empty_home: Path) -> None:
        three.rates["sun", "fp32"] = "no device"
        chosen()
        assert "sun fp32 does not work" in chosen(sample=no_sample).chosen
        self.age(empty_home)
        three.rates["sun", "fp32"] = 500.0
        assert chosen().provider == SUN

    def test_a_device_that_is_gone_does_not_end_the_run(self, three: Machine) -> None:
        chosen()
        three.devices = three.devices[:1]
        three.rates = {**three.rates, ("moon", "fp16"): "gone", ("moon", "fp32"): "gone", ("sun", "fp32"): "gone"}
        assert chosen().device in (*three.devices, None)

    def test_a_small_job_takes_the_cpu_rather_than_measure(self, three: Machine) -> None:
        found = chosen(sample=no_sample, texts=WORTH_MEASURING - 1)
        assert (found.provider.name, found.chosen) == ("cpu", "the job is too small to measure providers for")
        assert three.tried == []

    def test_a_small_job_takes_what_was_found_before(self, three: Machine) -> None:
        first = chosen()
        assert chosen(sample=no_sample, texts=1) == first

    def age(self, empty_home: Path) -> None:
        """The kept choice was measured long ago."""
        path = self.kept(empty_home)
        choice = msgspec.json.decode(path.read_bytes(), type=ProviderChoice)
        path.write_bytes(msgspec.json.encode(structs.replace(choice, measured=date(2020, 2, 2))))
