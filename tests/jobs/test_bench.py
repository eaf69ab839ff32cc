"""A bench measures what works with the same documents, says why the rest does not, and holds it against the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from embedmill.base.config import EngineTable, RunConfig
from embedmill.base.errors import DeviceError, InputError, OutputError
from embedmill.jobs.bench import bench
from embedmill.report.bench import BenchResult, bench_summary
from tests.support.jobs import make_config, make_rows, write_jsonl
from tests.support.stub_machine import Machine
from tests.support.systems import at


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> RunConfig:
    """Sixty documents in six shards."""
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(60))
    return make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10})


def measured(machine: Machine, job: RunConfig, **options: Any) -> BenchResult:
    options = {"texts": 20, "rounds": 1, "chart": None, "emulated": False} | options
    return bench(job, providers=machine.providers, try_provider=machine.try_provider, **options)


def verdict(machine: Machine, job: RunConfig, *, rounds: int = 1, **rates: list[float | str]) -> str:
    """Of a machine with the CPU at 50 documents/s and others in float32."""
    machine.rates |= {(name, "fp32"): found for name, found in rates.items()}
    return measured(machine, job, rounds=rounds).verdict


class TestTurns:
    def test_the_cpu_comes_first_and_the_rounds_take_turns(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("webgpu", "fp32"): [70.0], ("webgpu", "fp16"): [90.0]}
        measured(machine, job, rounds=2)
        turn = [("cpu", "fp32"), ("webgpu", "fp32"), ("webgpu", "fp16")]
        assert [(engine.provider, engine.precision) for engine, _ in machine.tried] == turn * 2

    def test_all_get_the_same_documents_and_at_most_so_many(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("webgpu", "fp32"): [70.0]}
        assert measured(machine, job).documents == 20
        assert [count for _, count in machine.tried] == [20, 20]
        assert measured(machine, job, texts=999).documents == 30

    def test_the_first_round_of_the_cpu_is_the_reference_and_each_peak_is_measured_once(
        self, machine: Machine, job: RunConfig
    ) -> None:
        machine.rates |= {("webgpu", "fp32"): [70.0]}
        measured(machine, job, rounds=2)
        wanted = [(options["request"].is_reference, bool(options["request"].sizes)) for options in machine.options]
        assert wanted == [(True, True), (False, True), (False, False), (False, False)]

    def test_what_fails_is_not_tried_again(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("webgpu", "fp32"): ["its process crashed"]}
        measured(machine, job, rounds=3)
        assert [engine.provider for engine, _ in machine.tried] == ["cpu", "webgpu", "cpu", "cpu"]

    @pytest.mark.parametrize("emulated", [True, False])
    def test_emulated_devices_are_left_out_unless_asked_for(
        self, machine: Machine, job: RunConfig, emulated: bool
    ) -> None:
        measured(machine, job, emulated=emulated)
        assert machine.options[0]["real_only"] is not emulated

    def test_one_that_is_named_is_measured_beside_the_cpu(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("webgpu", "fp32"): [70.0], ("openvino", "fp32"): [70.0]}
        measured(machine, structs.replace(job, engine=EngineTable(provider="openvino", device="gpu")))
        asked = [(engine.provider, engine.device) for engine, _ in machine.tried]
        assert asked == [("cpu", None), ("openvino", "gpu")]


class TestFigures:
    def test_rates_are_medians_with_their_spread_and_ratios_those_of_a_round(
        self, machine: Machine, job: RunConfig
    ) -> None:
        machine.rates = {("cpu", "fp32"): [50.0, 40.0, 20.0], ("webgpu", "fp32"): [100.0, 120.0, 80.0]}
        first, second = measured(machine, job, rounds=3).measured
        assert (first.documents_per_s, first.least, first.most) == (100.0, 80.0, 120.0)
        assert first.ratio == (2.0, 3.0, 4.0)
        assert (second.documents_per_s, second.ratio) == (40.0, (1.0, 1.0, 1.0))

    def test_useful_operations_are_held_against_the_peak(self, machine: Machine, job: RunConfig) -> None:
        [one] = measured(machine, job).measured
        assert one.flops_per_s == 50.0 * 1000
        assert one.peak_share == 0.25
        assert one.padding == 1.0
        assert one.memory_bytes == 1 << 30

    def test_what_is_not_known_stays_so(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("webgpu", "fp32"): [70.0]}
        machine.figures = {"flops": None, "peak_flops_per_s": None, "peak_words": "no kernel", "cosine": None}
        machine.figures |= {"memory_bytes": None, "memory_words": "no one tells"}
        found = measured(machine, job)
        one = found.measured[0]
        assert (one.flops_per_s, one.peak_share, one.memory_bytes, one.cosine) == (None, None, None, None)
        shown = bench_summary(found)
        assert "webgpu fp32: on Moon GPU; matrix peak unknown: no kernel; memory unknown: no one tells" in shown
        [row] = [line for line in shown.splitlines() if line.startswith("webgpu fp32  ")]
        assert row.split().count("unknown") == 4

    def test_other_documents_are_not_compared(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("webgpu", "fp32"): [70.0]}
        machine.figures, machine.emulated = {"texts": 2}, True
        found = measured(machine, job)
        assert found.measured[0].ratio is None
        assert "measured with 2 short documents, so not compared" in " ".join(bench_summary(found).split())
        assert "an emulated device says nothing" in found.verdict

    def test_the_fastest_stands_first_and_the_failing_last_with_its_reason(
        self, machine: Machine, job: RunConfig
    ) -> None:
        machine.rates |= {("webgpu", "fp32"): ["its process crashed with signal 11"], ("openvino", "fp32"): [70.0]}
        found = measured(machine, job)
        assert [one.provider for one in found.measured] == ["openvino", "cpu", "webgpu"]
        assert found.measured[-1].words == "its process crashed with signal 11"
        assert "webgpu fp32 does not work: its process crashed with signal 11" in bench_summary(found)

    def test_one_that_fails_in_a_later_round_does_not_work(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("webgpu", "fp32"): [70.0, "the device was lost"]}
        found = measured(machine, job, rounds=2)
        assert (found.measured[-1].provider, found.measured[-1].words) == ("webgpu", "the device was lost")


class TestVerdict:
    def test_a_faster_one_is_named(self, machine: Machine, job: RunConfig) -> None:
        said = verdict(machine, job, webgpu=[155.0], openvino=[60.0])
        assert said == "webgpu fp32 embeds 3.10 times as many documents per second as the CPU"

    def test_a_slower_one_does_not_beat_the_cpu(self, machine: Machine, job: RunConfig) -> None:
        said = verdict(machine, job, webgpu=[40.0], openvino=[25.0])
        assert said.startswith("nothing here beats the CPU: webgpu fp32, the nearest, embeds 0.80 times")

    def test_one_within_the_scatter_is_no_winner(self, machine: Machine, job: RunConfig) -> None:
        said = verdict(machine, job, rounds=3, webgpu=[45.0, 52.0, 60.0])
        assert said.startswith("nothing here clearly beats the CPU: webgpu fp32 embeds 1.04 times")
        assert said.endswith("0.90 to 1.20 round by round")

    def test_the_cpu_alone_says_what_to_do(self, machine: Machine, job: RunConfig) -> None:
        assert verdict(machine, job) == (
            "no other provider was measured: the CPU it is; `embedmill doctor` says what could be installed"
        )
        assert verdict(machine, job, webgpu=["lost"]).startswith("no other provider works here")

    def test_without_the_cpu_nothing_is_compared(self, machine: Machine, job: RunConfig) -> None:
        machine.rates[("cpu", "fp32")] = ["out of order"]
        assert verdict(machine, job, webgpu=[70.0]).startswith("nothing is compared: the CPU itself")


class TestBadInput:
    def test_nothing_that_works_ends_with_5(self, machine: Machine, job: RunConfig) -> None:
        machine.rates = {("cpu", "fp32"): ["out of order"], ("webgpu", "fp32"): ["lost"]}
        with pytest.raises(DeviceError, match=r"no provider works .*: cpu fp32: out of order; webgpu fp32: lost"):
            measured(machine, job)

    @pytest.mark.parametrize("name", ["absent/chart.svg", "folder"])
    def test_a_chart_that_cannot_be_written_is_told_before_anything_is_measured(
        self, machine: Machine, job: RunConfig, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(OutputError, match=f"{at(name)} cannot be written"):
            measured(machine, job, chart=tmp_path / name)
        assert machine.tried == []

    def test_no_input_is_told_with_what_to_give(self, machine: Machine, job: RunConfig) -> None:
        with pytest.raises(InputError, match="give --input"):
            measured(machine, structs.replace(job, input=RunConfig().input))

    def test_an_input_without_a_text_is_told(self, machine: Machine, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "b.jsonl", [{"text": None}])
        with pytest.raises(InputError, match="no text to measure with"):
            measured(machine, make_config(tiny_model, source, tmp_path / "out"))

    @pytest.mark.parametrize(
        ("engine", "words"),
        [
            ({"provider": "abacus"}, "there is no provider 'abacus'"),
            ({"provider": "cpu", "precision": "fp16"}, "in fp16"),
        ],
        ids=str,
    )
    def test_a_provider_that_is_not_there_is_told(
        self, machine: Machine, job: RunConfig, engine: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(DeviceError, match=words):
            measured(machine, structs.replace(job, engine=EngineTable(**engine)))

    def test_a_precision_that_only_others_have_is_told(self, machine: Machine, job: RunConfig) -> None:
        machine.rates |= {("openvino", "fp32"): [70.0], ("webgpu", "fp16"): [90.0]}
        with pytest.raises(DeviceError, match="openvino does not compute tiny in fp16"):
            measured(machine, structs.replace(job, engine=EngineTable(provider="openvino", precision="fp16")))
        assert machine.tried == []
