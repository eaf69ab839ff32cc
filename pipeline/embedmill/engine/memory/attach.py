"""Attach memory probes and guards to a target."""

from __future__ import annotations

from collections.abc import Callable

from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.engine.machine.memory import DeviceFacts, MemorySource, Probe, probe_for
from embedmill.engine.memory.guard import Guard
from embedmill.engine.target import Target


def guard_for(target: Target, fraction: float, on_change: Callable[[str], None]) -> Guard:
    """Return a run's guard; `on_change` receives each change as text."""
    return Guard(probe_of(target), fraction=fraction, device=has_its_own_memory(target), on_change=on_change)


def probe_of(target: Target) -> Probe:
    """Return the probe of the memory that a target uses."""
    return probe_for(_source(target), device_facts(target.provider, target.device))


def has_its_own_memory(target: Target) -> bool:
    """Tell device memory from system memory, shared with the process."""
    return _source(target) != "host"


def _source(target: Target) -> MemorySource:
    # A provider for several kinds of devices (OpenVINO) uses system memory on the CPU.
    on_cpu = target.device is not None and target.device.kind == "cpu"
    return "host" if on_cpu else target.provider.memory


def device_facts(provider: Provider, device: Device | None) -> DeviceFacts:
    """Convert the runtime's device metadata to facts for probes."""
    by_index = provider.memory == "nvml" and provider.ort.device is not None
    if device is None:
        # Without a listed device, a provider that numbers devices itself (CUDA) takes the first.
        return DeviceFacts(cuda_index=0 if by_index else None)
    ordinal = device.metadata.get(provider.ort.device.metadata, "") if provider.ort.device is not None else ""
    number = int(ordinal) if ordinal.isdecimal() else device.index
    return DeviceFacts(
        luid=int(device.luid) if device.luid.isdecimal() else None,
        bus_id=device.metadata.get("pci_bus_id", ""),
        cuda_index=number if by_index else None,
        vendor_id=device.vendor_id,
        integrated=None if device.discrete is None else not device.discrete,
    )
