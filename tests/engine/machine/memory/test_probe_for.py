"""The catalogue names the probe; a device that cannot be identified is unknown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.machine.memory import DeviceFacts, MemorySource, Probe, probe_for
from embedmill.engine.machine.memory.amdgpu import AmdgpuProbe
from embedmill.engine.machine.memory.host import HostProbe
from embedmill.engine.machine.memory.nvml import NvmlProbe
from embedmill.engine.machine.memory.probe import UnknownProbe
from embedmill.engine.machine.memory.windows import WindowsProbe

NVIDIA = DeviceFacts(uuid="GPU-1", vendor_id=0x10DE)
AMD = DeviceFacts(bus_id="0000:03:00.0", vendor_id=0x1002)
INTEL = DeviceFacts(bus_id="0000:00:02.0", vendor_id=0x8086)


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_every_source_of_the_catalogue_has_a_probe(provider: object) -> None:
    source = getattr(provider, "memory")  # noqa: B009
    assert source in get_args(MemorySource)
    probe_for(source).close()


@pytest.mark.parametrize(
    ("system", "source", "device", "kind"),
    [
        ("linux", "host", None, HostProbe),
        ("win32", "host", None, HostProbe),
        ("linux", "nvml", NVIDIA, NvmlProbe),
        ("linux", "nvml", DeviceFacts(cuda_index=0), NvmlProbe),
        ("linux", "nvml", None, UnknownProbe),
        ("linux", "amdgpu", None, AmdgpuProbe),
        ("win32", "dxgi", DeviceFacts(luid=5), WindowsProbe),
        ("win32", "dxgi", None, UnknownProbe),
        ("linux", "dxgi", DeviceFacts(luid=5), UnknownProbe),
        ("linux", "vendor", NVIDIA, NvmlProbe),
        ("linux", "vendor", AMD, AmdgpuProbe),
        ("linux", "vendor", INTEL, UnknownProbe),
        ("linux", "vendor", None, UnknownProbe),
        ("win32", "vendor", DeviceFacts(luid=5, vendor_id=0x8086), WindowsProbe),
        ("darwin", "vendor", AMD, UnknownProbe),
        ("linux", "unknown", NVIDIA, UnknownProbe),
    ],
)
def test_a_source_picks_its_probe(
    monkeypatch: pytest.MonkeyPatch, system: str, source: MemorySource, device: DeviceFacts | None, kind: type[Probe]
) -> None:
    monkeypatch.setattr(sys, "platform", system)
    probe = probe_for(source, device)
    assert type(probe) is kind
    probe.close()


@pytest.mark.parametrize(("source", "reason"), [("nvml", "which GPU"), ("unknown", "no interface"), ("dxgi", "")])
def test_who_cannot_know_says_why(source: MemorySource, reason: str) -> None:
    found = probe_for(source).read()
    assert found.free_bytes is None
    assert found.scope == "unknown"
    assert reason in found.reason
    assert found.reason


def test_the_host_of_this_machine_is_known() -> None:
    found = probe_for("host").read()
    assert found.free_bytes is not None
    assert found.ceiling_bytes is not None
    assert 0 < found.free_bytes <= found.ceiling_bytes


def test_the_root_is_passed_on(tmp_path: Path) -> None:
    folder = tmp_path / "sys/bus/pci/devices" / AMD.bus_id
    folder.mkdir(parents=True)
    (folder / "mem_info_vram_total").write_text("1000")
    (folder / "mem_info_vram_used").write_text("400")
    facts = DeviceFacts(bus_id=AMD.bus_id, integrated=False)
    assert probe_for("amdgpu", facts, root=tmp_path).read().free_bytes == 600


def test_looking_at_memory_loads_no_runtime_and_no_vendors_library() -> None:
    program = (
        "import sys; from embedmill.engine.machine.memory import probe_for; probe_for('host').read();"
        "print(sorted({'numpy', 'onnxruntime', 'pynvml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
