"""Windows' "GPU Adapter Memory" counters, of all processes."""

from __future__ import annotations

import ctypes
from ctypes import Structure, byref, c_int64, c_size_t, c_uint32, c_void_p, c_wchar_p
from typing import Any

from msgspec import Struct

# Functions and numbers: pdh.h and pdhmsg.h of the Windows SDK.
_FORMAT_LARGE = 0x400
_VALID = (0, 1)
_NAMES = ("Dedicated Usage", "Shared Usage", "Total Committed")


class CounterValue(Structure):
    """PDH_FMT_COUNTERVALUE with a 64-bit value."""

    _fields_ = (("Status", c_uint32), ("Value", c_int64))


class AdapterUse(Struct, frozen=True, kw_only=True):
    """Memory of an adapter used by all processes, in bytes."""

    dedicated_bytes: int
    shared_bytes: int
    committed_bytes: int


class GpuCounters:
    """Open counters of an adapter, by LUID (see `DeviceFacts`).

    `library` is pdh.dll, by default the system's. Raises OSError without the library or the counters, which need
    Windows 10 version 1709 and a WDDM 2 driver.
    """

    def __init__(self, luid: int, library: Any = None) -> None:
        self._library = library or ctypes.CDLL("pdh.dll")
        self._query = c_void_p()
        _check("PdhOpenQueryW", self._library.PdhOpenQueryW(None, c_size_t(0), byref(self._query)))
        try:
            self._counters = [self._add(counter_path(luid, name)) for name in _NAMES]
        except OSError:
            self.close()
            raise

    def read(self) -> AdapterUse:
        """Read the counters. Raises OSError where a value is missing."""
        _check("PdhCollectQueryData", self._library.PdhCollectQueryData(self._query))
        values = [self._value(counter, name) for counter, name in zip(self._counters, _NAMES, strict=True)]
        return AdapterUse(dedicated_bytes=values[0], shared_bytes=values[1], committed_bytes=values[2])

    def close(self) -> None:
        """Close the query and the counters."""
        self._library.PdhCloseQuery(self._query)

    def _add(self, path: str) -> c_void_p:
        counter = c_void_p()
        # English names work on every Windows; localised ones do not.
        add = self._library.PdhAddEnglishCounterW
        _check(path, add(self._query, c_wchar_p(path), c_size_t(0), byref(counter)))
        return counter

    def _value(self, counter: c_void_p, name: str) -> int:
        value = CounterValue()
        read = self._library.PdhGetFormattedCounterValue
        _check(name, read(counter, c_uint32(_FORMAT_LARGE), None, byref(value)))
        if value.Status not in _VALID:
            raise OSError(f"{name} has no value ({value.Status:08X})")
        return int(value.Value)


def counter_path(luid: int, name: str) -> str:
    """Return the path of a counter."""
    # phys_0: of linked physical adapters DirectML uses the first.
    return rf"\GPU Adapter Memory(luid_0x{luid >> 32:08X}_0x{luid & 0xFFFFFFFF:08X}_phys_0)\{name}"


def _check(function: str, code: int) -> None:
    if code & 0xFFFFFFFF:
        raise OSError(f"{function} failed with {code & 0xFFFFFFFF:08X}")
