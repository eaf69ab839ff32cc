"""GPUs of Windows in the order in which DirectML counts them: DXGI.

`python -m embedmill.engine.machine.adapters.dxgi` prints them as JSON.

Types, numbers and places in the tables of methods: dxgi.h of the Windows SDK. NPUs are not adapters of DXGI.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import Structure, byref, c_int32, c_int64, c_size_t, c_uint16, c_uint32, c_void_p
from typing import Any
from uuid import UUID

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Look, unnamed
from embedmill.engine.machine.adapters.child import answer, look_in_child
from embedmill.engine.machine.adapters.com import RELEASE, call, check

_FACTORY1 = UUID("770aae78-f26f-4dba-a829-253c83d1b387").bytes_le
_DEVICE = UUID("54ec77fa-1377-44e6-8c32-88fd5f44c84c").bytes_le
_NOT_FOUND = 0x887A0002
_REMOTE, _SOFTWARE = 1, 2
# Places of methods: of IUnknown, IDXGIFactory1, IDXGIAdapter and IDXGIAdapter1.
_ENUM_ADAPTERS_1 = 12
_CHECK_INTERFACE_SUPPORT = 9
_GET_DESC_1 = 10


class Description(Structure):
    """DXGI_ADAPTER_DESC1: sizes are in bytes; the name is UTF-16, which is not `c_wchar` on every system."""

    _fields_ = (
        ("Description", c_uint16 * 128),
        ("VendorId", c_uint32),
        ("DeviceId", c_uint32),
        ("SubSysId", c_uint32),
        ("Revision", c_uint32),
        ("DedicatedVideoMemory", c_size_t),
        ("DedicatedSystemMemory", c_size_t),
        ("SharedSystemMemory", c_size_t),
        ("LuidLow", c_uint32),
        ("LuidHigh", c_int32),
        ("Flags", c_uint32),
    )


def adapters_in_child(timeout_s: float) -> Look:
    """`look` in a child of this process, which a driver may crash or hang; `timeout_s` in seconds."""
    return look_in_child("embedmill.engine.machine.adapters.dxgi", timeout_s)


def main() -> None:
    """Print what is seen as JSON."""
    answer(look)


def look(library: Any = None) -> Look:
    """Every adapter of DXGI; `library` is dxgi.dll, by default the system's."""
    seen: list[Adapter] = []
    try:
        for index, (description, driver) in enumerate(_descriptions(library or ctypes.CDLL("dxgi.dll"))):
            seen.append(_adapter(index, description, driver))
    except OSError as error:
        return Look(adapters=tuple(seen), reason=str(error))
    return Look(adapters=tuple(seen))


def _descriptions(library: Any) -> Iterator[tuple[Description, int | None]]:
    """Each adapter, and the version of its driver. Raises OSError with the code of what failed."""
    factory = c_void_p()
    check("CreateDXGIFactory1", library.CreateDXGIFactory1(_FACTORY1, byref(factory)))
    try:
        index = 0
        while adapter := _enumerated(factory, index):
            try:
                yield _described(adapter)
            finally:
                call(adapter, RELEASE)
            index += 1
    finally:
        call(factory, RELEASE)


def _enumerated(factory: c_void_p, index: int) -> c_void_p | None:
    adapter = c_void_p()
    code = call(factory, _ENUM_ADAPTERS_1, c_uint32(index), byref(adapter))
    if code & 0xFFFFFFFF == _NOT_FOUND:
        return None
    check("EnumAdapters1", code)
    return adapter


def _described(adapter: c_void_p) -> tuple[Description, int | None]:
    description, version = Description(), c_int64()
    check("GetDesc1", call(adapter, _GET_DESC_1, byref(description)))
    asked = call(adapter, _CHECK_INTERFACE_SUPPORT, _DEVICE, byref(version))
    return description, version.value if asked >= 0 else None


def _adapter(index: int, description: Description, driver: int | None) -> Adapter:
    name = bytes(description.Description).decode("utf-16-le", errors="replace").partition("\0")[0]
    kind, note = _kind(description.Flags)
    return Adapter(
        seen_by="dxgi",
        name=name or unnamed(description.VendorId, description.DeviceId),
        kind=kind,
        vendor_id=description.VendorId,
        device_id=description.DeviceId,
        luid=(description.LuidHigh & 0xFFFFFFFF) << 32 | description.LuidLow,
        memory_bytes=description.DedicatedVideoMemory,
        shared_memory_bytes=description.SharedSystemMemory,
        driver="" if driver is None else ".".join(str(driver >> shift & 0xFFFF) for shift in (48, 32, 16, 0)),
        note=f"adapter {index}" + note,
    )


def _kind(flags: int) -> tuple[Kind, str]:
    if flags & _SOFTWARE:
        return "cpu", "; software: it runs on the processor"
    return ("unknown", "; of a remote session") if flags & _REMOTE else ("gpu", "")


if __name__ == "__main__":
    main()
