"""List the devices of Vulkan drivers, software renderers included.

`python -m embedmill.engine.machine.adapters.vulkan` prints the scan as JSON.

Types and numbers: vulkan_core.h of the Vulkan 1.3 headers. No extension is enabled.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int32, c_uint8, c_uint32, c_void_p
from typing import Any

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Scan, unnamed
from embedmill.engine.machine.adapters.child import answer

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
    4: ("cpu", None, "a software renderer on the CPU"),
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
    """VkPhysicalDeviceProperties, 824 bytes."""

    _fields_ = (
        ("apiVersion", c_uint32),
        ("driverVersion", c_uint32),
        ("vendorID", c_uint32),
        ("deviceID", c_uint32),
        ("deviceType", c_int32),
        ("deviceName", c_char * 256),
        ("pipelineCacheUUID", c_uint8 * 16),
        # The limits and sparse properties are not read, but the driver writes them.
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


def main() -> None:
    """Print the scan as JSON."""
    answer(scan)


def scan(library: Any = None) -> Scan:
    """Return Vulkan's physical devices; `library` defaults to the system's loader."""
    if library is None:
        name = _LIBRARIES.get(sys.platform, "libvulkan.so.1")
        try:
            library = ctypes.CDLL(name)
        except OSError:
            return Scan(reason=f"the Vulkan loader ({name}) is not installed")
    # A loader of Vulkan 1.0 lacks this function, and rejects a higher version.
    version = _VERSION_1_1 if hasattr(library, "vkEnumerateInstanceVersion") else 1 << 22
    application = _ApplicationInfo(sType=_APPLICATION_INFO, pApplicationName=b"embedmill", apiVersion=version)
    info = _InstanceCreateInfo(sType=_INSTANCE_CREATE_INFO, pApplicationInfo=ctypes.pointer(application))
    instance = c_void_p()
    code = library.vkCreateInstance(byref(info), None, byref(instance))
    if code == _INCOMPATIBLE_DRIVER:
        return Scan(reason="no Vulkan driver is installed")
    if code < 0:
        return Scan(reason=f"vkCreateInstance failed with {code}")
    try:
        return _devices(library, instance, version >= _VERSION_1_1)
    finally:
        library.vkDestroyInstance(instance, None)


def _devices(library: Any, instance: c_void_p, with_driver: bool) -> Scan:
    count = c_uint32()
    code = library.vkEnumeratePhysicalDevices(instance, byref(count), None)
    devices = (c_void_p * count.value)()
    if code >= 0 and count.value:
        code = library.vkEnumeratePhysicalDevices(instance, byref(count), devices)
    if code == _INITIALIZATION_FAILED:
        # The loader's answer where Mesa's drivers are installed and none has a device.
        return Scan(reason="no installed Vulkan driver finds a device")
    if code < 0:
        return Scan(reason=f"vkEnumeratePhysicalDevices failed with {code}")
    found = tuple(_adapter(library, c_void_p(device), with_driver) for device in devices[: count.value])
    return Scan(adapters=found, reason="more devices appeared during the scan" if code == _INCOMPLETE else "")


def _adapter(library: Any, device: c_void_p, with_driver: bool) -> Adapter:
    properties = _Properties()
    library.vkGetPhysicalDeviceProperties(device, byref(properties))
    driver, luid = f"{properties.driverVersion:#x}", None
    # A loader of 1.1 may list a driver of Vulkan 1.0.
    if with_driver and properties.apiVersion >= _VERSION_1_1:
        name, luid = _driver(library, device)
        driver = name or driver
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
    """Return driver name (empty before Vulkan 1.2) and LUID."""
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
