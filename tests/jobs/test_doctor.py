"""The doctor tries what is installed, and says of the rest how it comes here or why it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.records import Model, Tokens
from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.machine.adapters import Adapter
from embedmill.engine.machine.machine import this_machine
from embedmill.jobs.doctor import docstrings, examine
from embedmill.report.doctor import DoctorResult, Finding, doctor_summary
from embedmill.tune.trial import Measurement
from tests.support.fake_devices import device_of
from tests.support.jobs import embedmill, tiny_bundle
from tests.support.works import installed, not_installed

WORKING = Measurement(
    provider="webgpu",
    precision="fp32",
    device=device_of(0, name="Arc 140V"),
    devices=[device_of(0, name="Arc 140V"), device_of(1, name="Basic Render")],
    documents_per_s=812.34,
    canary_cosine=0.9999998,
    nodes_placed=223,
    nodes=223,
)
FAILING = Measurement(provider="qnn", precision="fp16", words="its process crashed with signal 11 (SIGSEGV)")
TRIALS = {"webgpu": WORKING, "qnn": FAILING, "cpu": structs.replace(WORKING, provider="cpu", devices=[])}
ELSEWHERE = ("directml", "coreml")


class Machine:
    """A machine where three providers are installed, and the trials made there."""

    def __init__(self) -> None:
        self.tried: list[tuple[EngineTable, Tokens]] = []

    def examined(self, name: str) -> DoctorResult:
        return examine(name, providers=list(map(self.entry, PROVIDERS)), try_provider=self.try_provider)

    def entry(self, provider: Provider) -> Provider:
        if provider.name in ELSEWHERE:
            return structs.replace(provider, distributions=())
        return installed(provider) if provider.name in TRIALS else not_installed(provider)

    def try_provider(self, model: Model, engine: EngineTable, tokens: Tokens, **options: Any) -> Measurement:
        assert options["real_only"] is False
        self.tried.append((engine, tokens))
        return structs.replace(TRIALS[engine.provider], precision=engine.precision)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def bundle(tiny_model: Path) -> str:
    return str(tiny_bundle(tiny_model))


def finding(found: DoctorResult, name: str) -> Finding:
    return next(finding for finding in found.findings if finding.provider == name)


def test_every_provider_of_the_catalogue_is_told_in_its_order(machine: Machine, bundle: str) -> None:
    assert [found.provider for found in machine.examined(bundle).findings] == [provider.name for provider in PROVIDERS]


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("webgpu", "works"),
        ("cpu", "works"),
        ("qnn", "fails"),
        ("cuda", "installable"),
        ("openvino", "installable"),
        ("directml", "elsewhere"),
        ("coreml", "elsewhere"),
    ],
)
def test_a_provider_has_a_state(machine: Machine, bundle: str, name: str, state: str) -> None:
    assert finding(machine.examined(bundle), name).state == state


def test_each_precision_of_what_is_installed_is_tried_and_nothing_else(machine: Machine, bundle: str) -> None:
    machine.examined(bundle)
    assert [(engine.provider, engine.precision) for engine, _ in machine.tried] == [
        ("qnn", "fp16"),
        ("webgpu", "fp32"),
        ("webgpu", "fp16"),
        ("cpu", "fp32"),
    ]


def test_it_tries_with_real_texts_of_many_lengths(machine: Machine, bundle: str) -> None:
    machine.examined(bundle)
    lengths = machine.tried[0][1].lengths
    assert len(lengths) == 128
    assert len(set(lengths.tolist())) > 2
    assert len(set(docstrings())) > 500


def test_a_model_that_cannot_be_had_leaves_the_rest_of_the_examination(machine: Machine, tmp_path: Path) -> None:
    found = machine.examined(str(tmp_path / "nothing"))
    assert machine.tried == []
    assert finding(found, "cpu").state == "fails"
    assert "there is no model to try it with: there is no model" in finding(found, "cpu").words
    assert finding(found, "cuda").state == "installable"


def test_a_terminal_shows_figures_reasons_lines_and_devices(machine: Machine, bundle: str) -> None:
    shown = doctor_summary(machine.examined(bundle))
    assert "fp32 on Arc 140V: 812.3 documents/s, canary cosine 0.9999998, nodes placed 223/223" in shown
    assert "devices: 0: Arc 140V (gpu); 1: Basic Render (gpu)" in shown
    assert "fp16: its process crashed with signal 11 (SIGSEGV)" in shown
    assert "python -m pip install numpy\n           it needs an NVIDIA driver" in shown
    assert "qnn        installed, but fails" in shown
    assert "directml   not for this machine" in shown


def test_what_is_seen_and_what_could_not_be_looked_at_is_shown(machine: Machine, bundle: str) -> None:
    seen = Adapter(seen_by="drm", name="NVIDIA 2684", kind="gpu", integrated=False, memory_bytes=24 << 30)
    found = structs.replace(machine.examined(bundle), adapters=[seen], unseen=["vulkan: crashed with signal 11"])
    shown = doctor_summary(found)
    assert "adapters    NVIDIA 2684 (discrete gpu, 24.0 GiB; reported by drm)" in shown
    assert "not read    vulkan: crashed with signal 11" in shown
    assert "no GPU or NPU" in doctor_summary(structs.replace(found, adapters=[]))


def test_wsl_and_emulation_are_named(machine: Machine, bundle: str) -> None:
    wsl = structs.replace(this_machine(), architecture="x86_64", native_architecture="arm64", wsl=2)
    shown = doctor_summary(structs.replace(machine.examined(bundle), machine=wsl))
    assert "x86_64 (emulated on arm64), WSL2" in shown


def test_the_command_tries_the_cpu_for_real(bundle: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert embedmill("doctor", "--model", bundle, "--json") == 0
    found = json.loads(capfd.readouterr().out)
    cpu = next(finding for finding in found["findings"] if finding["provider"] == "cpu")
    assert cpu["state"] == "works"
    assert cpu["trials"][0]["nodes"] == cpu["trials"][0]["nodes_placed"] > 0
    assert cpu["trials"][0]["documents_per_s"] > 1
