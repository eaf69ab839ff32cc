"""GPUs of Vulkan drivers, software renderers too.

`python -m embedmill.engine.machine.adapters.vulkan` prints them as JSON.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import POINTER, Structure, byref, c_char, c_char_p, c_int32, c_uint8, c_uint32, c_void_p
from typing import Any

from embedmill.engine.machine.adapters.adapter import Adapter, Detection, Kind, fallback_name
from embedmill.engine.machine.adapters.child import print_detection

_LOADER = {"win32": "vulkan-1.dll", "darwin": "libvulkan.1.dylib"}.get(sys.platform, "libvulkan.so.1")
# Types and numbers: vulkan_core.h of the Vulkan 1.3 headers.
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
    _fields_ = (
        ("apiVersion", c_uint32),
        ("driverVersion", c_uint32),
        ("vendorID", c_uint32),
        ("deviceID", c_uint32),
        ("deviceType", c_int32),
        ("deviceName", c_char * 256),
        ("pipelineCacheUUID", c_uint8 * 16),
        # Limits and sparse properties, unread: the driver writes all 824 bytes of VkPhysicalDeviceProperties.
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
    """Print the adapters as JSON."""
    print_detection(detect)


def detect(loader: Any = _LOADER) -> Detection:
    """Detect physical devices; `loader` is a library or a name."""
    try:
        library = ctypes.CDLL(loader) if isinstance(loader, str) else loader
    except OSError:
        return Detection(reason=f"the Vulkan loader ({loader}) is not installed")
    # A loader of Vulkan 1.0 lacks this function, and refuses instances of a later version.
    version = _VERSION_1_1 if hasattr(library, "vkEnumerateInstanceVersion") else 1 << 22
    application = _ApplicationInfo(sType=_APPLICATION_INFO, pApplicationName=b"embedmill", apiVersion=version)
    wanted = _InstanceCreateInfo(sType=_INSTANCE_CREATE_INFO, pApplicationInfo=ctypes.pointer(application))
    instance = c_void_p()
    code = library.vkCreateInstance(byref(wanted), None, byref(instance))
    if code == _INCOMPATIBLE_DRIVER:
        return Detection(reason="no Vulkan driver is installed")
    if code < 0:
        return Detection(reason=f"vkCreateInstance failed with {code}")
    try:
        return _detect(library, instance, version >= _VERSION_1_1)
    finally:
        library.vkDestroyInstance(instance, None)


def _detect(library: Any, instance: c_void_p, with_driver: bool) -> Detection:
    count = c_uint32()
    code = library.vkEnumeratePhysicalDevices(instance, byref(count), None)
    devices = (c_void_p * count.value)()
    if code >= 0 and count.value:
        code = library.vkEnumeratePhysicalDevices(instance, byref(count), devices)
    if code == _INITIALIZATION_FAILED:
        # The loader's answer on a machine that has Mesa's drivers and no device for them.
        return Detection(reason="no installed Vulkan driver finds a device")
    if code < 0:
        return Detection(reason=f"vkEnumeratePhysicalDevices failed with {code}")
    found = tuple(_adapter(library, c_void_p(device), with_driver) for device in devices[: count.value])
    return Detection(adapters=found, reason="more devices appeared meanwhile" if code == _INCOMPLETE else "")


def _adapter(library: Any, device: c_void_p, with_driver: bool) -> Adapter:
    properties = _Properties()
    library.vkGetPhysicalDeviceProperties(device, byref(properties))
    driver, luid = f"{properties.driverVersion:#x}", None
    # The driver itself may still be of Vulkan 1.0.
    if with_driver and properties.apiVersion >= _VERSION_1_1:
        name, luid = _driver(library, device)
        driver = name or driver
    kind, integrated, note = _KINDS.get(properties.deviceType, ("unknown", None, ""))
    version = properties.apiVersion
    api = f"Vulkan {version >> 22 & 0x7F}.{version >> 12 & 0x3FF}.{version & 0xFFF}"
    return Adapter(
        seen_by="vulkan",
        name=_text(properties.deviceName) or fallback_name(properties.vendorID, properties.deviceID),
        kind=kind,
        integrated=integrated,
        vendor_id=properties.vendorID,
        device_id=properties.deviceID,
        luid=luid,
        driver=driver,
        note=f"{api}; {note}" if note else api,
    )


def _driver(library: Any, device: c_void_p) -> tuple[str, int | None]:
    # Name and version of the driver are empty before Vulkan 1.2. No extension is needed for either query.
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
