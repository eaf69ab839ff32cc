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
from embedmill.engine.catalogue.entry import GraphChoice, Provider
from embedmill.engine.devices import Device
from embedmill.engine.target import Target
from embedmill.tune.provider import WORTH_MEASURING, ProviderChoice, choose_target
from embedmill.tune.trial import Measurement
from tests.support.fake_devices import device_of
from tests.support.works import CPU, installed, model, not_installed, provider_of, tokens_of

AUTO = EngineTable()
MOON = installed(
    provider_of(
        precisions={
            "fp32": GraphChoice(graph="fused", floor=0.99999),
            "fp16": GraphChoice(graph="fused-fp16", floor=0.999),
        }
    )
)
SUN = installed(provider_of(name="sun", ort_name="SunExecutionProvider"))
KNOWN = model(graphs=["fused", "fused-fp16"])


def no_sample() -> Tokens:
    pytest.fail("texts were read to measure with")


def a_sample() -> Tokens:
    return tokens_of([[2, 7, 3]])


class Machine:
    """A machine with some providers, and what trials of them would find."""

    def __init__(self) -> None:
        self.providers: tuple[Provider, ...] = (not_installed(MOON), not_installed(SUN), CPU)
        self.rates: dict[tuple[str, str], float | str] = {}
        self.devices = [device_of(0, name="Near side"), device_of(1, name="Far side")]
        self.tried: list[EngineTable] = []
        self.sampled: list[Tokens] = []

    def try_provider(self, model: Model, engine: EngineTable, tokens: Tokens, **options: Any) -> Measurement:
        assert options == {"real_only": True}
        self.tried.append(engine)
        self.sampled.append(tokens)
        found = self.rates[engine.provider, engine.precision]
        device = self.devices[-1] if engine.provider != "cpu" else None
        result = Measurement(provider=engine.provider, precision=engine.precision, device=device)
        return structs.replace(result, **({"words": found} if isinstance(found, str) else {"documents_per_s": found}))

    def list_devices(self, provider: Provider, **_: Any) -> list[Device]:
        return self.devices if provider.name != "cpu" else []

    def chosen(
        self,
        engine: EngineTable = AUTO,
        *,
        sample: Callable[[], Tokens] = a_sample,
        known: Model = KNOWN,
        texts: int = WORTH_MEASURING,
    ) -> Target:
        return choose_target(
            known,
            engine,
            sample,
            texts=texts,
            providers=self.providers,
            try_provider=self.try_provider,
            list_devices=self.list_devices,
        )


@pytest.fixture
def machine(empty_home: Path) -> Machine:
    """A machine with the CPU; moon and sun are in the catalogue."""
    return Machine()


@pytest.fixture
def three(machine: Machine) -> Machine:
    """Moon in both precisions, sun and CPU; moon fp16 is the fastest."""
    machine.providers = (MOON, SUN, CPU)
    machine.rates = {("moon", "fp32"): 50.0, ("moon", "fp16"): 80.0, ("sun", "fp32"): 20.0, ("cpu", "fp32"): 60.0}
    return machine


class TestOne:
    def test_a_provider_that_was_asked_for_is_not_measured(self, three: Machine) -> None:
        found = three.chosen(EngineTable(provider="sun"), sample=no_sample)
        assert (found.label, found.chosen) == ("sun fp32 on Near side", "asked for")
        assert three.tried == []

    def test_an_unknown_one_lists_the_known_ones(self, machine: Machine) -> None:
        with pytest.raises(DeviceError, match="there is no provider 'abacus'"):
            machine.chosen(EngineTable(provider="abacus"))

    def test_with_the_cpu_alone_nothing_is_measured_or_kept(self, machine: Machine, empty_home: Path) -> None:
        found = machine.chosen(sample=no_sample)
        assert (found.label, found.chosen) == ("cpu fp32", "the only provider installed here")
        assert machine.tried == []
        assert not (empty_home.parent / "choices").exists()

    def test_a_precision_that_none_here_has_is_refused(self, machine: Machine) -> None:
        with pytest.raises(DeviceError, match="computes fake in fp16"):
            machine.chosen(EngineTable(precision="fp16"))

    def test_a_device_that_the_only_provider_lacks_is_refused(self, machine: Machine) -> None:
        with pytest.raises(DeviceError, match="cpu has no device 'gpu'"):
            machine.chosen(EngineTable(device="gpu"), sample=no_sample)


class TestSeveral:
    def test_the_fastest_is_taken_on_the_device_it_was_measured_on(self, three: Machine) -> None:
        found = three.chosen()
        assert (found.provider, found.precision, found.device) == (MOON, "fp16", three.devices[1])

    def test_each_precision_of_each_is_measured_on_the_users_texts(self, three: Machine) -> None:
        three.chosen()
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
            found = three.chosen()
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
        assert three.chosen().label == "cpu fp32"

    def test_one_that_does_not_work_is_told_and_not_taken(self, three: Machine) -> None:
        three.rates["moon", "fp16"] = "it leaves operators to the CPU"
        found = three.chosen()
        assert found.provider == CPU
        assert "moon fp16 does not work: it leaves operators to the CPU" in found.chosen

    def test_where_none_works_every_reason_is_told(self, three: Machine) -> None:
        three.rates = dict.fromkeys(three.rates, "no")
        three.rates["sun", "fp32"] = "its process crashed (SIGSEGV)"
        with pytest.raises(DeviceError) as refused:
            three.chosen()
        assert refused.value.exit_code == 5
        assert str(refused.value) == (
            "no provider works on this machine: moon fp32 does not work: no; moon fp16 does not work: no;"
            " sun fp32 does not work: its process crashed (SIGSEGV); cpu fp32 does not work: no"
        )

    def test_a_precision_that_was_asked_for_leaves_the_others_out(self, three: Machine) -> None:
        three.rates["sun", "fp16"] = 1.0
        found = three.chosen(EngineTable(precision="fp32"))
        assert [one.precision for one in three.tried] == ["fp32", "fp32", "fp32"]
        assert found.provider == CPU

    def test_a_graph_that_the_model_lacks_is_not_measured(self, three: Machine) -> None:
        three.chosen(known=model(graphs=["fused"]))
        assert ("moon", "fp16") not in [(one.provider, one.precision) for one in three.tried]

    def test_the_options_of_the_job_hold_in_its_trials(self, three: Machine) -> None:
        three.chosen(EngineTable(device="far", budget_tokens=99))
        assert {(one.device, one.budget_tokens) for one in three.tried} == {("far", 99)}


class TestKept:
    def test_the_second_time_nothing_is_measured(self, three: Machine) -> None:
        first = three.chosen()
        three.tried.clear()
        assert three.chosen(sample=no_sample) == first
        assert three.tried == []

    @pytest.mark.parametrize("number", [0, 2], ids=["moon", "cpu"])
    def test_another_version_is_measured_again(self, three: Machine, number: int) -> None:
        three.chosen()
        three.tried.clear()
        # Another package has another name and version.
        providers = list(three.providers)
        providers[number] = structs.replace(providers[number], distributions=installed(CPU, "pyarrow").distributions)
        three.providers = tuple(providers)
        three.chosen()
        assert len(three.tried) == 4

    @pytest.mark.parametrize(
        "options",
        [{"engine": EngineTable(budget_tokens=64)}, {"known": model(max_tokens=64, graphs=["fused", "fused-fp16"])}],
        ids=["options", "model"],
    )
    def test_another_job_is_measured_for_itself(self, three: Machine, options: dict[str, Any]) -> None:
        three.chosen()
        three.tried.clear()
        if "known" in options:
            options["known"] = structs.replace(options["known"], identity="1" * 64)
        three.chosen(**options)
        assert len(three.tried) == 4

    def kept(self, empty_home: Path) -> Path:
        [path] = (empty_home.parent / "choices").iterdir()
        return path

    @pytest.mark.parametrize("content", [b"", b"{", b'{"measured": 7}', b"\xff\x00"], ids=repr)
    def test_a_damaged_file_is_measured_again(self, three: Machine, empty_home: Path, content: bytes) -> None:
        first = three.chosen()
        self.kept(empty_home).write_bytes(content)
        assert three.chosen() == first
        assert len(three.tried) == 8
        assert three.chosen(sample=no_sample) == first

    def test_what_works_is_kept_for_good(self, three: Machine, empty_home: Path) -> None:
        three.chosen()
        self.age(empty_home)
        assert "2020-02-02" in three.chosen(sample=no_sample).chosen

    def test_what_failed_is_tried_again_another_day(self, three: Machine, empty_home: Path) -> None:
        three.rates["sun", "fp32"] = "no device"
        three.chosen()
        assert "sun fp32 does not work" in three.chosen(sample=no_sample).chosen
        self.age(empty_home)
        three.rates["sun", "fp32"] = 500.0
        assert three.chosen().provider == SUN

    def test_a_device_that_is_gone_does_not_end_the_run(self, three: Machine) -> None:
        three.chosen()
        three.devices = three.devices[:1]
        three.rates = {**three.rates, ("moon", "fp16"): "gone", ("moon", "fp32"): "gone", ("sun", "fp32"): "gone"}
        assert three.chosen().device in (*three.devices, None)

    def test_a_small_job_takes_the_cpu_rather_than_measure(self, three: Machine) -> None:
        found = three.chosen(sample=no_sample, texts=WORTH_MEASURING - 1)
        assert (found.provider.name, found.chosen) == ("cpu", "the job is too small to measure providers for")
        assert three.tried == []

    def test_a_small_job_takes_what_was_found_before(self, three: Machine) -> None:
        first = three.chosen()
        assert three.chosen(sample=no_sample, texts=1) == first

    def age(self, empty_home: Path) -> None:
        """The kept choice was measured long ago."""
        path = self.kept(empty_home)
        choice = msgspec.json.decode(path.read_bytes(), type=ProviderChoice)
        path.write_bytes(msgspec.json.encode(structs.replace(choice, measured=date(2020, 2, 2))))
