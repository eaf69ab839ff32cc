"""Devices of a provider in ONNX Runtime, and device selection."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

from msgspec import Struct

from embedmill.base.environment import versions_of
from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue.entry import DeviceKind, Plugin, Provider
from embedmill.engine.catalogue.runtimes import RUNTIMES
from embedmill.engine.plugins import library_of, package_of, plugin_of
from embedmill.engine.runtime import RUNTIME_ERRORS, ort

_SHOWN = 300
# After every device that the system ranks.
_UNRANKED = 1 << 30


class Device(Struct, frozen=True, kw_only=True):
    """Device of a provider, with the runtime's `metadata`.

    `discrete` and `vendor_id` (of PCI) are None if unknown; `emulated`: the provider was made for another kind.
    """

    index: int
    kind: DeviceKind
    name: str
    luid: str
    discrete: bool | None
    emulated: bool
    metadata: dict[str, str]
    vendor_id: int | None = None

    @property
    def label(self) -> str:
        """Return the name for people."""
        return f"{self.name}{' (emulated)' if self.emulated else ''}"


def devices_of(provider: Provider) -> list[Device]:
    """List devices in the runtime's order. Raises DeviceError."""
    return [_describe(index, found, provider) for index, found in enumerate(runtime_devices(provider))]


def runtime_devices(provider: Provider) -> list[Any]:
    """List devices as ONNX Runtime's own objects, registering plugins first."""
    if (plugin := plugin_of(provider.ort)) is not None:
        _register(plugin, provider.ort.name)
    return [found for found in ort.get_ep_devices() if found.ep_name == provider.ort.name]


def select_device(provider: Provider, devices: Sequence[Device], wanted: str | None) -> Device | None:
    """Select a named device, or the most powerful, or None.

    Raises DeviceError that lists the devices where none fits.
    """
    ranked = sorted(devices, key=lambda device: _rank(device, provider))
    if wanted is None:
        return ranked[0] if ranked else None
    for device in ranked:
        if _matches(device, wanted):
            return device
    listed = "; ".join(f"{device.index}: {device.label} ({device.kind})" for device in devices) or "none"
    raise DeviceError(f"{provider.name} has no device {wanted!r}; `engine.device` (--device) can name one of: {listed}")


def _rank(device: Device, provider: Provider) -> tuple[int, int, bool]:
    """Rank by kind, system order, then discrete before integrated."""
    kind = provider.kinds.index(device.kind) if device.kind in provider.kinds else len(provider.kinds)
    rank = device.metadata.get(provider.ort.device.rank, "") if provider.ort.device is not None else ""
    return kind, int(rank) if rank.isdigit() else _UNRANKED, not device.discrete


def _matches(device: Device, wanted: str) -> bool:
    word = wanted.strip().lower()
    if word in ("discrete", "integrated"):
        return device.kind == "gpu" and device.discrete is (word == "discrete")
    if word in get_args(DeviceKind):
        return device.kind == word
    return word in (str(device.index), device.luid.lower()) or (not word.isdigit() and word in device.name.lower())


def _describe(index: int, found: Any, provider: Provider) -> Device:
    hardware = found.device
    facts = {
        str(key): str(value) for key, value in {**hardware.metadata, **found.ep_options, **found.ep_metadata}.items()
    }
    kind: DeviceKind = hardware.type.name.lower()
    discrete = facts.get("Discrete")
    return Device(
        index=index,
        kind=kind,
        name=facts.get("Description") or facts.get("FULL_DEVICE_NAME") or f"{hardware.vendor} {kind.upper()}".strip(),
        luid=facts.get("LUID", ""),
        discrete=None if discrete is None else discrete == "1",
        emulated=kind not in provider.kinds,
        metadata=facts,
        vendor_id=getattr(hardware, "vendor_id", None) or None,
    )


@cache
def _register(plugin: Plugin, name: str) -> None:
    """Load a plugin library under the name of a provider."""
    # Cached, for registering twice is an error; QNN's library takes its name from here.
    library = library_of(plugin, name)
    try:
        ort.register_execution_provider_library(name, library)
    except RUNTIME_ERRORS as error:
        package = package_of(plugin)
        version = versions_of([package]).get(package, "of unknown version")
        # Another package of the runtime than the installed one would take DirectML away.
        runtime = [*versions_of(RUNTIMES), "onnxruntime"][0]
        raise DeviceError(
            f"{name}: ONNX Runtime {ort.__version__} cannot load {package} {version} ({first_line(error)});"
            f" update both: python -m pip install --upgrade {runtime} {package}"
        ) from error


def first_line(error: Exception) -> str:
    """Return first line of an error, at most 300 characters."""
    line = str(error).strip().split("\n", 1)[0]
    # The cause stands at the end, after paths and node names.
    return line if len(line) <= _SHOWN else f"... {line[-_SHOWN:]}"
