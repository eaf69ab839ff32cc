"""GPUs that a Vulkan driver offers, software ones too.

`python -m embedmill.engine.machine.adapters.vulkan` prints them as JSON.

Types and numbers: vulkan_core.h of the Vulkan 1.3 headers. No extension is asked for.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int32, c_uint8, c_uint32, c_void_p
from typing import Any

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Look, unnamed
from embedmill.engine.machine.adapters.child import answer, look_in_child

_LIBRARIES = {"win32": "vulkan-1.dll", "darwin": "libvulkan.1.dylib"}
_VERSION_1_1 = 1 << 22 | 1 << 12
_INCOMPLETE, _INITIALIZATION_FAILED, _INCOMPATIBLE_DRIVER = 5, -3, -9
_APPLICATION_INFO, _INSTANCE_CREATE_INFO = 0, 1
_PROPERTIES_2, _ID_PROPERTIES, _DRIVER_PROPERTIES = 1000059001, 1000071004, 1000196000
# VkPhysicalDeviceType.
_KINDS: dict[int, tuple[Kind, bool | None, str]] = {
    1: ("gpu", True, ""),
    2: ("gpu", False, ""),
    3: ("gpu", None, "a virtual device"),
    4: ("cpu", None, "software: it runs on the processor"),
}


class _ApplicationInfo(Structure):
    _fields_ = (
        ("sType", c_int32),
        ("pNext", c_void_p),
        ("pApplicationName", c_char_p),
        ("applicationVersion", c_uint32),
        ("pEngineName", c_char_p),
        ("engineVersion", c_uint32),
        ("apiVersion", c_uint32),
    )


class _InstanceCreateInfo(Structure):
    _fields_ = (
        ("sType", c_int32),
        ("pNext", c_void_p),
        ("flags", c_uint32),
        ("pApplicationInfo", POINTER(_ApplicationInfo)),
        ("enabledLayerCount", c_uint32),
        ("ppEnabledLayerNames", c_void_p),
        ("enabledExtensionCount", c_uint32),
        ("ppEnabledExtensionNames", c_void_p),
    )


class _Properties(Structure):
    """VkPhysicalDeviceProperties; of its limits and sparse properties only the room they take (824 bytes in all)."""

    _fields_ = (
        ("apiVersion", c_uint32),
        ("driverVersion", c_uint32),
        ("vendorID", c_uint32),
        ("deviceID", c_uint32),
        ("deviceType", c_int32),
        ("deviceName", c_char * 256),
        ("pipelineCacheUUID", c_uint8 * 16),
        ("rest", ctypes.c_uint64 * 66),
    )


class _DriverProperties(Structure):
    _fields_ = (
        ("sType", c_int32),
        ("pNext", c_void_p),
        ("driverID", c_int32),
        ("driverName", c_char * 256),
        ("driverInfo", c_char * 256),
        ("conformanceVersion", c_uint8 * 4),
    )


class _IdProperties(Structure):
    _fields_ = (
        ("sType", c_int32),
        ("pNext", c_void_p),
        ("deviceUUID", c_uint8 * 16),
        ("driverUUID", c_uint8 * 16),
        ("deviceLUID", c_uint8 * 8),
        ("deviceNodeMask", c_uint32),
        ("deviceLUIDValid", c_uint32),
    )


class _Properties2(Structure):
    _fields_ = (("sType", c_int32), ("pNext", c_void_p), ("properties", _Properties))


def adapters_in_child(timeout_s: float) -> Look:
    """`look` in a child of this process, which a driver may crash or hang; `timeout_s` in seconds."""
    return look_in_child("embedmill.engine.machine.adapters.vulkan", timeout_s)


def main() -> None:
    """Print what is seen as JSON."""
    answer(look)


def look(library: Any = None) -> Look:
    """Every physical device of every Vulkan driver; `library` is the loader, by default the system's."""
    if library is None:
        name = _LIBRARIES.get(sys.platform, "libvulkan.so.1")
        try:
            library = ctypes.CDLL(name)
        except OSError:
            return Look(reason=f"the Vulkan loader ({name}) is not installed")
    # A loader of Vulkan 1.0 lacks this function, and refuses to be asked for more.
    version = _VERSION_1_1 if hasattr(library, "vkEnumerateInstanceVersion") else 1 << 22
    application = _ApplicationInfo(sType=_APPLICATION_INFO, pApplicationName=b"embedmill", apiVersion=version)
    wanted = _InstanceCreateInfo(sType=_INSTANCE_CREATE_INFO, pApplicationInfo=ctypes.pointer(application))
    instance = c_void_p()
    code = library.vkCreateInstance(byref(wanted), None, byref(instance))
    if code == _INCOMPATIBLE_DRIVER:
        return Look(reason="no Vulkan driver is installed")
    if code < 0:
        return Look(reason=f"vkCreateInstance failed with {code}")
    try:
        return _look_at(library, instance, version >= _VERSION_1_1)
    finally:
        library.vkDestroyInstance(instance, None)


def _look_at(library: Any, instance: c_void_p, with_driver: bool) -> Look:
    count = c_uint32()
    code = library.vkEnumeratePhysicalDevices(instance, byref(count), None)
    devices = (c_void_p * count.value)()
    if code >= 0 and count.value:
        code = library.vkEnumeratePhysicalDevices(instance, byref(count), devices)
    if code == _INITIALIZATION_FAILED:
        # What the loader says on a machine with Mesa's drivers and none of their devices.
        return Look(reason="no Vulkan driver that is installed finds a device")
    if code < 0:
        return Look(reason=f"vkEnumeratePhysicalDevices failed with {code}")
    found = tuple(_adapter(library, c_void_p(device), with_driver) for device in devices[: count.value])
    return Look(adapters=found, reason="more devices appeared meanwhile" if code == _INCOMPLETE else "")


def _adapter(library: Any, device: c_void_p, with_driver: bool) -> Adapter:
    properties = _Properties()
    library.vkGetPhysicalDeviceProperties(device, byref(properties))
    driver, luid = f"{properties.driverVersion:#x}", None
    # The driver itself may still be of Vulkan 1.0.
    if with_driver and properties.apiVersion >= _VERSION_1_1:
        words, luid = _driver(library, device)
        driver = words or driver
    kind, integrated, note = _KINDS.get(properties.deviceType, ("unknown", None, ""))
    version = properties.apiVersion
    api = f"Vulkan {version >> 22 & 0x7F}.{version >> 12 & 0x3FF}.{version & 0xFFF}"
    return Adapter(
        seen_by="vulkan",
        name=_text(properties.deviceName) or unnamed(properties.vendorID, properties.deviceID),
        kind=kind,
        integrated=integrated,
        vendor_id=properties.vendorID,
        device_id=properties.deviceID,
        luid=luid,
        driver=driver,
        note=f"{api}; {note}" if note else api,
    )


def _driver(library: Any, device: c_void_p) -> tuple[str, int | None]:
    """The driver in its own words, empty where it is too old to have any (before Vulkan 1.2), and the LUID."""
    named = _DriverProperties(sType=_DRIVER_PROPERTIES)
    numbered = _IdProperties(sType=_ID_PROPERTIES, pNext=ctypes.addressof(named))
    both = _Properties2(sType=_PROPERTIES_2, pNext=ctypes.addressof(numbered))
    library.vkGetPhysicalDeviceProperties2(device, byref(both))
    luid = int.from_bytes(bytes(numbered.deviceLUID), "little") if numbered.deviceLUIDValid else None
    return f"{_text(named.driverName)} {_text(named.driverInfo)}".strip(), luid


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="replace")


if __name__ == "__main__":
    main()
