"""What a runtime's device tells of itself, as memory probes ask for it."""

from __future__ import annotations

from pipeline.engine.devices import Device
from pipeline.engine.memory import DeviceFacts


def facts_of(device: Device | None) -> DeviceFacts:
    """All of it that is known."""
    if device is None:
        return DeviceFacts()
    index = device.metadata.get("device_id", "")
    return DeviceFacts(
        luid=int(device.luid) if device.luid.isdigit() else None,
        cuda_index=int(index) if index.isdigit() else None,
        integrated=None if device.discrete is None else not device.discrete,
    )
