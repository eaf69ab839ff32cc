"""What looks at the memory of a target while a run computes on it."""

from __future__ import annotations

from collections.abc import Callable

from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.engine.machine.memory import DeviceFacts, MemorySource, Probe, probe_for
from embedmill.engine.memory.guard import Guard
from embedmill.engine.target import Target


def guard_for(target: Target, fraction: float, on_change: Callable[[str], None]) -> Guard:
    """The guard of a run on a target; `on_change` is told each change of the batches in words."""
    return Guard(
        probe_of(target),
        fraction=fraction,
        device=has_its_own_memory(target),
        on_change=on_change,
    )


def probe_of(target: Target) -> Probe:
    """What looks at the memory that a target takes."""
    return probe_for(_word(target), device_facts(target.provider, target.device))


def has_its_own_memory(target: Target) -> bool:
    """Whether batches take a device's memory, or the machine's, as all else in this process."""
    return _word(target) != "host"


def _word(target: Target) -> MemorySource:
    """Who reports the memory: of a provider for several kinds of devices, the host when it runs on the processor."""
    on_processor = target.device is not None and target.device.kind == "cpu"
    return "host" if on_processor else target.provider.memory


def device_facts(provider: Provider, device: Device | None) -> DeviceFacts:
    """What the runtime tells of a device, in the words of probes.

    Without a device listed, a provider that counts them itself (CUDA) takes its first.
    """
    counts = provider.memory == "nvml" and provider.ort.device is not None
    if device is None:
        return DeviceFacts(cuda_index=0 if counts else None)
    told = device.metadata.get(provider.ort.device.metadata, "") if provider.ort.device is not None else ""
    number = int(told) if told.isdecimal() else device.index
    return DeviceFacts(
        luid=int(device.luid) if device.luid.isdecimal() else None,
        bus_id=device.metadata.get("pci_bus_id", ""),
        cuda_index=number if counts else None,
        vendor_id=device.vendor_id,
        integrated=None if device.discrete is None else not device.discrete,
    )
