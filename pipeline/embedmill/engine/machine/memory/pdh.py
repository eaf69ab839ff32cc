"""Read Windows' performance counters of "GPU Adapter Memory".

Functions and numbers: pdh.h and pdhmsg.h of the Windows SDK.
"""

from __future__ import annotations

import ctypes
from ctypes import Structure, byref, c_int64, c_size_t, c_uint32, c_void_p, c_wchar_p
from typing import Any

from msgspec import Struct

_FORMAT_LARGE = 0x400
_VALID = (0, 1)
_NAMES = ("Dedicated Usage", "Shared Usage", "Total Committed")


class Value(Structure):
    """PDH_FMT_COUNTERVALUE with a 64-bit value."""

    _fields_ = (("Status", c_uint32), ("Value", c_int64))


class Counted(Struct, frozen=True, kw_only=True):
    """Bytes that all processes use or have committed."""

    dedicated_bytes: int
    shared_bytes: int
    committed_bytes: int


class GpuCounters:
    """Counters of one adapter, held until `close`.

    `luid` is high part << 32 | low part; `library` defaults to the system's pdh.dll. Raises OSError where the library
    or the counters are missing (Windows 10 has such counters since version 1709, with a driver of WDDM 2).
    """

    def __init__(self, luid: int, library: Any = None) -> None:
        self._library = library or ctypes.CDLL("pdh.dll")
        self._query = c_void_p()
        _check("PdhOpenQueryW", self._library.PdhOpenQueryW(None, c_size_t(0), byref(self._query)))
        try:
            self._counters = [self._added(counter_path(luid, name)) for name in _NAMES]
        except OSError:
            self.close()
            raise

    def read(self) -> Counted:
        """Read current values; raises OSError where one is missing."""
        _check("PdhCollectQueryData", self._library.PdhCollectQueryData(self._query))
        values = [self._value(counter, name) for counter, name in zip(self._counters, _NAMES, strict=True)]
        return Counted(dedicated_bytes=values[0], shared_bytes=values[1], committed_bytes=values[2])

    def close(self) -> None:
        """Close the query and all counters."""
        self._library.PdhCloseQuery(self._query)

    def _added(self, path: str) -> c_void_p:
        counter = c_void_p()
        # English names work on every Windows; localised ones do not.
        add = self._library.PdhAddEnglishCounterW
        _check(path, add(self._query, c_wchar_p(path), c_size_t(0), byref(counter)))
        return counter

    def _value(self, counter: c_void_p, name: str) -> int:
        value = Value()
        read = self._library.PdhGetFormattedCounterValue
        _check(name, read(counter, c_uint32(_FORMAT_LARGE), None, byref(value)))
        if value.Status not in _VALID:
            raise OSError(f"{name} has no value ({value.Status:08X})")
        return int(value.Value)


def counter_path(luid: int, name: str) -> str:
    r"""Return a counter's path.

    As `\GPU Adapter Memory(luid_0x00000000_0x0000D2C4_phys_0)\Dedicated Usage`.
    """
    # DirectML uses the first (phys_0) of linked physical adapters.
    return rf"\GPU Adapter Memory(luid_0x{luid >> 32:08X}_0x{luid & 0xFFFFFFFF:08X}_phys_0)\{name}"


def _check(function: str, code: int) -> None:
    if code & 0xFFFFFFFF:
        raise OSError(f"{function} failed with {code & 0xFFFFFFFF:08X}")
