"""The chart of a bench: bars, whiskers and readable labels."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from msgspec import structs

from embedmill.engine.machine.machine import this_machine
from embedmill.report.bench import BenchResult, ProviderBench
from embedmill.report.bench_chart import bench_chart

CPU = ProviderBench(
    provider="cpu",
    precision="fp32",
    reference=True,
    documents_per_s=50.0,
    least=50.0,
    most=50.0,
    ratio=(1.0, 1.0, 1.0),
    documents=20,
    peak_share=0.25,
)
GPU = structs.replace(
    CPU, provider="webgpu", reference=False, documents_per_s=100.0, least=100.0, most=100.0, ratio=(2.0, 2.0, 2.0)
)
LOST = ProviderBench(provider="openvino", precision="fp32", reference=False, words="lost")


def found(*measured: ProviderBench, **options: Any) -> BenchResult:
    values: dict[str, Any] = {"model": "tiny", "verdict": "webgpu fp32 is faster"} | options
    return BenchResult(
        version="1.0",
        machine=this_machine(),
        documents=20,
        tokens=200,
        rounds=3,
        measured=list(measured),
        chart=None,
        **values,
    )


def parts(bench: BenchResult) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(bench_chart(bench)).iter())


def of_kind(bench: BenchResult, kind: str) -> list[ElementTree.Element]:
    return [part for part in parts(bench) if kind in part.get("class", "").split()]


def words(bench: BenchResult) -> list[str]:
    return [part.text or "" for part in parts(bench) if part.tag.endswith("text")]


def test_each_that_works_has_a_bar_as_long_as_its_rate() -> None:
    first, second = (float(bar.attrib["width"]) for bar in of_kind(found(GPU, CPU, LOST), "bar"))
    assert first == pytest.approx(2 * second, abs=0.2)


def test_whiskers_stand_where_rounds_differ() -> None:
    scattered = structs.replace(CPU, least=40.0, most=80.0)
    assert len(of_kind(found(GPU, scattered), "whisker")) == 1
    assert of_kind(found(GPU, CPU), "whisker") == []


def test_names_figures_and_axes_can_be_read() -> None:
    shown = words(found(GPU, structs.replace(CPU, peak_share=None)))
    assert {"webgpu fp32", "cpu fp32", "100.0  (2.00 x CPU)", "50.0", "25%", "unknown", "0", "100"} <= set(shown)
    assert any(word.startswith("documents per second") for word in shown)
    assert shown[0] == "Webgpu fp32 is faster"


def test_an_emulated_device_is_named_as_such() -> None:
    assert "webgpu fp32 (emulated)" in words(found(structs.replace(GPU, emulated=True), CPU))


def test_a_share_above_the_peak_stays_within_its_panel() -> None:
    [whole], [share] = (of_kind(found(structs.replace(CPU, peak_share=1.4)), kind) for kind in ("whole", "share"))
    assert float(share.attrib["width"]) <= float(whole.attrib["width"])


@pytest.mark.parametrize("rate", [0.03, 7.0, 999.9, 123456.0])
def test_the_axis_reaches_to_the_fastest_in_few_round_steps(rate: float) -> None:
    bench = found(structs.replace(CPU, documents_per_s=rate, least=rate, most=rate))
    [bar] = of_kind(bench, "bar")
    assert 0 < float(bar.attrib["width"]) <= 410
    assert 5 <= len(of_kind(bench, "grid")) <= 9


def test_a_long_verdict_takes_more_lines() -> None:
    bench = found(CPU, verdict="slow " * 60)
    assert len(of_kind(bench, "title")) == 3
    assert float(of_kind(bench, "bar")[0].attrib["y"]) > float(of_kind(found(CPU), "bar")[0].attrib["y"])


def test_what_a_driver_calls_itself_does_not_break_it() -> None:
    assert "]]> & <b>" in words(found(CPU, verdict="]]> & <b>", model="<&'\""))
