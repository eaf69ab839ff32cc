"""The bench with the CPU itself; the other providers are some that are not for this machine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import pytest

from embedmill.base.config import RunConfig
from embedmill.jobs import bench as bench_module
from embedmill.tune.trial import try_provider
from tests.support.jobs import embedmill, make_config, make_rows, words_of, write_jsonl
from tests.support.stub_machine import Machine
from tests.support.tiny_model import HIDDEN, INTERMEDIATE, LAYERS


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> RunConfig:
    """Sixty documents in six shards."""
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(60))
    return make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10})


class TestForReal:
    """The CPU measures itself; the other provider is one that is not installed."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One pass, small matrices."""
        machine = Machine()
        machine.rates[("coreml", "fp32")] = []
        machine.rates[("directml", "fp32")] = []
        monkeypatch.setattr(bench_module, "candidates_of", machine.candidates)
        monkeypatch.setattr(bench_module, "try_provider", partial(try_provider, timed_s=0.0))
        monkeypatch.setattr(bench_module, "PEAK_SIZES", (16, 64))

    @pytest.mark.hostile
    def test_the_command_gives_sane_figures_and_a_chart(
        self, tmp_path: Path, job: RunConfig, capsys: pytest.CaptureFixture[str]
    ) -> None:
        chart = tmp_path / "bench.svg"
        line = [*words_of(job)[1:], "--texts", "20", "--rounds", "2", "--json", "--chart", str(chart)]
        assert embedmill("bench", *line) == 0
        found = json.loads(capsys.readouterr().out)
        cpu, *failing = found["measured"]
        assert (found["documents"], found["rounds"], found["chart"]) == (20, 2, str(chart))
        assert (cpu["provider"], cpu["reference"], cpu["documents"]) == ("cpu", True, 20)
        assert 1 < cpu["least"] <= cpu["documents_per_s"] <= cpu["most"]
        assert cpu["tokens_per_s"] == pytest.approx(cpu["documents_per_s"] * found["tokens"] / 20)
        least = LAYERS * 2 * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INTERMEDIATE)
        assert least < cpu["flops_per_s"] / cpu["tokens_per_s"] < 1.5 * least
        assert cpu["peak_share"] == pytest.approx(cpu["flops_per_s"] / cpu["peak_flops_per_s"])
        assert 0 <= cpu["padding"] < 1
        assert cpu["memory_bytes"] >= 0
        assert {one["provider"] for one in failing} == {"coreml", "directml"}
        assert all("is not for this machine" in one["words"] for one in failing if one["provider"] == "coreml")
        assert len([part for part in ElementTree.parse(chart).iter() if part.get("class") == "bar reference"]) == 1

    def test_the_command_shows_a_table(self, job: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill("bench", *words_of(job)[1:], "--texts", "5", "--rounds", "1") == 0
        told = capsys.readouterr().out
        assert told.startswith("5 documents of ")
        assert "cpu fp32" in told
        assert "no other provider works here" in told.splitlines()[-1]
