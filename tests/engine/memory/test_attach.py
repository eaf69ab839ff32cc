"""A target's memory is probed as the catalogue says, on the device that the runtime names."""

from __future__ import annotations

import sys

import pytest
from msgspec import structs

from embedmill.engine.catalogue import find_provider
from embedmill.engine.devices import devices_of
from embedmill.engine.machine.memory import DeviceFacts
from embedmill.engine.memory.attach import device_facts, guard_for, has_own_memory, probe_of
from embedmill.engine.target import Target
from tests.support.fake_devices import device_of
from tests.support.works import CPU, target_of

CUDA, DIRECTML, WEBGPU = (find_provider(name) for name in ("cuda", "directml", "webgpu"))


def test_what_the_runtime_tells_of_a_device_tells_it_from_others() -> None:
    device = structs.replace(device_of(luid="70243", discrete=True, pci_bus_id="0000:03:00.0"), vendor_id=0x1002)
    assert device_facts(DIRECTML, device) == DeviceFacts(
        luid=70243, bus_id="0000:03:00.0", vendor_id=0x1002, integrated=False
    )


def test_what_the_runtime_does_not_tell_is_not_known() -> None:
    assert device_facts(WEBGPU, device_of()) == DeviceFacts()
    assert device_facts(WEBGPU, None) == DeviceFacts()


@pytest.mark.parametrize(
    ("device", "index"),
    [(device_of(1, device_id="3"), 3), (device_of(1), 1), (None, 0)],
    ids=["told", "by its place", "the provider's own choice"],
)
def test_cuda_counts_its_devices_itself(device: object, index: int) -> None:
    assert device_facts(CUDA, device).cuda_index == index  # type: ignore[arg-type]


def test_the_runtime_tells_who_made_a_device() -> None:
    [device] = devices_of(CPU)
    assert device.vendor_id is not None


def test_a_provider_for_several_kinds_of_devices_takes_the_machines_memory_on_the_processor() -> None:
    openvino = target_of(find_provider("openvino"))
    assert has_own_memory(structs.replace(openvino, device=device_of(kind="gpu")))
    assert not has_own_memory(structs.replace(openvino, device=device_of(kind="cpu")))
    assert not has_own_memory(target_of(CPU))


@pytest.mark.skipif(sys.platform != "linux", reason="the source is Linux's")
def test_the_cpu_is_watched_with_the_fraction_of_the_job() -> None:
    with guard_for(target_of(CPU), 0.5, print) as guard:
        facts = guard.facts()
    assert facts is not None
    assert facts.reserve_bytes
    half = guard_for(target_of(CPU), 0.9, print)
    with half:
        other = half.facts()
    assert other is not None
    assert other.reserve_bytes is not None
    assert 4 < facts.reserve_bytes / other.reserve_bytes < 6


def test_a_provider_that_computes_on_the_cpu_takes_the_machines_memory() -> None:
    openvino = find_provider("openvino")
    on_cpu = Target(provider=openvino, precision="fp32", device=device_of(kind="cpu"), chosen="asked for")
    assert probe_of(on_cpu).read().free_bytes is not None
    assert not has_own_memory(on_cpu)
    assert has_own_memory(structs.replace(on_cpu, device=device_of(kind="gpu")))
