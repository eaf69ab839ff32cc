"""Memory probe and guard of a target."""

from __future__ import annotations

from collections.abc import Callable

from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.engine.machine.memory import DeviceFacts, MemorySource, Probe, probe_for
from embedmill.engine.memory.guard import Guard
from embedmill.engine.target import Target


def guard_for(target: Target, fraction: float, on_change: Callable[[str], None]) -> Guard:
    """Return a guard; `on_change` receives each change as a sentence."""
    return Guard(probe_of(target), fraction=fraction, device=has_own_memory(target), on_change=on_change)


def probe_of(target: Target) -> Probe:
    """Return the probe of the memory that a target uses."""
    return probe_for(_source(target), device_facts(target.provider, target.device))


def has_own_memory(target: Target) -> bool:
    """Return whether batches use device memory, not system memory."""
    return _source(target) != "host"


def _source(target: Target) -> MemorySource:
    return target.provider.memory_of(None if target.device is None else target.device.kind)


def device_facts(provider: Provider, device: Device | None) -> DeviceFacts:
    """Return the identity of a device for probes."""
    # A provider with device numbers of its own (CUDA) takes the first one by default.
    counts = provider.memory == "nvml" and provider.ort.device is not None
    if device is None:
        return DeviceFacts(cuda_index=0 if counts else None)
    listed = device.metadata.get(provider.ort.device.metadata, "") if provider.ort.device is not None else ""
    number = int(listed) if listed.isdecimal() else device.index
    return DeviceFacts(
        luid=int(device.luid) if device.luid.isdecimal() else None,
        bus_id=device.metadata.get("pci_bus_id", ""),
        cuda_index=number if counts else None,
        vendor_id=device.vendor_id,
        integrated=None if device.discrete is None else not device.discrete,
    )
