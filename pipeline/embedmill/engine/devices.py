"""The devices that ONNX Runtime sees for a provider, and the choice among them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from typing import Any

import onnxruntime as ort
from msgspec import Struct

from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue.entry import DeviceKind, Provider

_SHOWN = 300
_UNRANKED = 1 << 30


class Device(Struct, frozen=True, kw_only=True):
    """One device of a provider; `discrete` and `vendor_id` (of PCI) are None where the runtime does not say,
    `emulated` where the provider was made for another kind. `metadata` is the runtime's own."""

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
        """What people are shown."""
        return f"{self.name}{' (emulated)' if self.emulated else ''}"


def devices_of(provider: Provider) -> list[Device]:
    """The provider's devices in the runtime's order; its library is registered first.

    Raises DeviceError where the library cannot be loaded.
    """
    return [_describe(index, found, provider) for index, found in enumerate(runtime_devices(provider))]


def runtime_devices(provider: Provider) -> list[Any]:
    """The same as ONNX Runtime's own objects."""
    if provider.ort.plugin is not None:
        _register(provider.ort.plugin.module, provider.ort.name)
    return [found for found in ort.get_ep_devices() if found.ep_name == provider.ort.name]


def select_device(provider: Provider, devices: Sequence[Device], wanted: str | None) -> Device | None:
    """The device that `wanted` names, or the most powerful; None where the runtime lists none.

    Raises DeviceError that lists the devices where none fits.
    """
    ranked = sorted(devices, key=lambda device: _rank(device, provider))
    if wanted is None:
        return ranked[0] if ranked else None
    fitting = [device for device in ranked if _fits(device, wanted)]
    if fitting:
        return fitting[0]
    listed = "; ".join(f"{device.index}: {device.label} ({device.kind})" for device in devices) or "none"
    raise DeviceError(f"{provider.name} has no device {wanted!r}; `engine.device` (--device) can name one of: {listed}")


def _rank(device: Device, provider: Provider) -> tuple[int, int, bool]:
    """What the provider was made for first, then as the system ranks, then discrete before integrated."""
    kind = provider.kinds.index(device.kind) if device.kind in provider.kinds else len(provider.kinds)
    told = device.metadata.get(provider.ort.device.rank, "") if provider.ort.device is not None else ""
    return kind, int(told) if told.isdigit() else _UNRANKED, not device.discrete


def _fits(device: Device, wanted: str) -> bool:
    word = wanted.strip().lower()
    if word in ("discrete", "integrated"):
        return device.kind == "gpu" and device.discrete is (word == "discrete")
    if word in ("cpu", "gpu", "npu"):
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
def _register(module: str, name: str) -> None:
    """Load a plugin library under the name of its provider, which QNN's takes from here; once per process, for
    a second time is an error of the runtime's."""
    try:
        library = importlib.import_module(module).get_library_path()
    except (ImportError, OSError) as error:
        raise DeviceError(f"{name}: {module} cannot be imported ({error})") from error
    try:
        ort.register_execution_provider_library(name, library)
    except RUNTIME_ERRORS as error:
        package = module.replace("_", "-")
        raise DeviceError(
            f"{name}: ONNX Runtime {ort.__version__} cannot load {package} {_version(package)} ({first_line(error)});"
            f" update both: python -m pip install --upgrade onnxruntime {package}"
        ) from error


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _runtime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions: they share no base but Exception; pybind11 makes a MemoryError of `std::bad_alloc`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidGraph",
        "InvalidArgument",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
        "EPFail",
        "EngineError",
        "ModelRequiresCompilation",
        "NotFound",
    )
    return (*(getattr(state, name) for name in names if hasattr(state, name)), RuntimeError, ValueError, MemoryError)


RUNTIME_ERRORS = _runtime_errors()


def first_line(error: Exception) -> str:
    """What the runtime said, without its later lines; of a long first one the end, where the cause stands."""
    line = str(error).strip().split("\n", 1)[0]
    return line if len(line) <= _SHOWN else f"... {line[-_SHOWN:]}"
