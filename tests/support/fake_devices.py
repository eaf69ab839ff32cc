"""Devices as the runtime tells of them, and as ours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from embedmill.engine.catalogue.entry import DeviceKind
from embedmill.engine.devices import Device


def device_of(
    index: int = 0,
    *,
    kind: DeviceKind = "gpu",
    name: str = "Moon GPU",
    luid: str = "",
    discrete: bool | None = None,
    emulated: bool = False,
    **metadata: str,
) -> Device:
    """A device with `metadata` of the runtime's."""
    return Device(
        index=index, kind=kind, name=name, luid=luid, discrete=discrete, emulated=emulated, metadata=dict(metadata)
    )


def runtime_device(
    kind: str = "GPU", *, provider: str = "MoonExecutionProvider", vendor: str = "Lunar", **metadata: Any
) -> SimpleNamespace:
    """What `onnxruntime.get_ep_devices()` lists; `ep_` metadata are the provider's own, `option_` its defaults."""
    options = {key.removeprefix("option_"): metadata.pop(key) for key in list(metadata) if key.startswith("option_")}
    own = {key.removeprefix("ep_"): value for key, value in metadata.items() if key.startswith("ep_")}
    rest = {key: value for key, value in metadata.items() if not key.startswith("ep_")}
    hardware = SimpleNamespace(type=SimpleNamespace(name=kind), vendor=vendor, metadata=rest)
    return SimpleNamespace(ep_name=provider, device=hardware, ep_metadata=own, ep_options=options)
