"""What all processes use of a GPU under Windows: the performance counters of "GPU Adapter Memory".

Functions and numbers: pdh.h and pdhmsg.h of the Windows SDK. Counters by their English names, which every Windows
knows (PdhAddEnglishCounterW); in its own language it has others.
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
    """Bytes of an adapter's memory that all processes use: of its own, of the machine's, and promised in all."""

    dedicated_bytes: int
    shared_bytes: int
    committed_bytes: int


class GpuCounters:
    """The counters of one adapter, by its LUID (high part << 32 | low part); they are held until `close`.

    `library` is pdh.dll, by default the system's. Raises OSError where it is missing or there are no such counters
    (Windows 10 has them since version 1709, where the driver is of WDDM 2).
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
        """Their values now. Raises OSError where one has none."""
        _check("PdhCollectQueryData", self._library.PdhCollectQueryData(self._query))
        values = [self._value(counter, name) for counter, name in zip(self._counters, _NAMES, strict=True)]
        return Counted(dedicated_bytes=values[0], shared_bytes=values[1], committed_bytes=values[2])

    def close(self) -> None:
        """Close the query, and its counters with it."""
        self._library.PdhCloseQuery(self._query)

    def _added(self, path: str) -> c_void_p:
        counter = c_void_p()
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
    r"""The path of a counter, as `\GPU Adapter Memory(luid_0x00000000_0x0000D2C4_phys_0)\Dedicated Usage`.

    DirectML uses the first (0) of the physical adapters that may be linked to one.
    """
    return rf"\GPU Adapter Memory(luid_0x{luid >> 32:08X}_0x{luid & 0xFFFFFFFF:08X}_phys_0)\{name}"


def _check(what: str, code: int) -> None:
    if code & 0xFFFFFFFF:
        raise OSError(f"{what} failed with {code & 0xFFFFFFFF:08X}")
