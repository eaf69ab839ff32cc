"""What Windows lets this process use of a GPU: DXGI's budgets.

Types, numbers and places in the tables of methods: dxgi1_4.h of the Windows SDK.
"""

from __future__ import annotations

import ctypes
from ctypes import Structure, byref, c_uint32, c_uint64, c_void_p
from typing import Any
from uuid import UUID

from msgspec import Struct

from embedmill.engine.machine.adapters.com import RELEASE, call, check
from embedmill.engine.machine.adapters.dxgi import Description

_FACTORY4 = UUID("1bc6ea02-ef36-464f-bf0c-21ca39e5168a").bytes_le
_ADAPTER3 = UUID("645967a4-1392-4310-a798-8053ce3e93fd").bytes_le
# Places of methods: of IUnknown, IDXGIAdapter1, IDXGIAdapter3 and IDXGIFactory4.
_GET_DESC_1 = 10
_QUERY_VIDEO_MEMORY_INFO = 14
_ENUM_ADAPTER_BY_LUID = 26
# DXGI_MEMORY_SEGMENT_GROUP.
_LOCAL, _NON_LOCAL = 0, 1


class MemoryInfo(Structure):
    """DXGI_QUERY_VIDEO_MEMORY_INFO, in bytes."""

    _fields_ = (
        ("Budget", c_uint64),
        ("CurrentUsage", c_uint64),
        ("AvailableForReservation", c_uint64),
        ("CurrentReservation", c_uint64),
    )


class Video(Struct, frozen=True, kw_only=True):
    """An adapter's memory as DXGI tells it to this process, in bytes.

    dedicated_bytes, shared_bytes  of its own, and of the machine's memory that it may use
    budget_bytes, own_bytes        what the system lets this process use of the memory that is fastest for the adapter
                                   (an integrated one's: the machine's), and what it uses of it
    far_budget_bytes               of the machine's memory, for a discrete adapter; an integrated one has no such group
                                   (remarks on D3D12_MEMORY_POOL)
    """

    dedicated_bytes: int
    shared_bytes: int
    budget_bytes: int
    own_bytes: int
    far_budget_bytes: int


class DxgiAdapter:
    """One adapter, by its LUID (high part << 32 | low part); it is held until `close`.

    `library` is dxgi.dll, by default the system's. Raises OSError where it is missing or has no such adapter.
    """

    def __init__(self, luid: int, library: Any = None) -> None:
        factory, self._adapter = c_void_p(), c_void_p()
        library = library or ctypes.CDLL("dxgi.dll")
        check("CreateDXGIFactory1", library.CreateDXGIFactory1(_FACTORY4, byref(factory)))
        try:
            # A structure of 8 bytes is passed as a number of 8 bytes, on x64 and on ARM64.
            code = call(factory, _ENUM_ADAPTER_BY_LUID, c_uint64(luid), _ADAPTER3, byref(self._adapter))
            check("EnumAdapterByLuid", code)
        finally:
            call(factory, RELEASE)

    def read(self) -> Video:
        """Sizes, budgets and use now. Raises OSError where the adapter is gone."""
        description = Description()
        check("GetDesc1", call(self._adapter, _GET_DESC_1, byref(description)))
        near, far = self._info(_LOCAL), self._info(_NON_LOCAL)
        return Video(
            dedicated_bytes=description.DedicatedVideoMemory,
            shared_bytes=description.SharedSystemMemory,
            budget_bytes=near.Budget,
            own_bytes=near.CurrentUsage,
            far_budget_bytes=far.Budget,
        )

    def close(self) -> None:
        """Release the adapter."""
        call(self._adapter, RELEASE)

    def _info(self, group: int) -> MemoryInfo:
        info = MemoryInfo()
        code = call(self._adapter, _QUERY_VIDEO_MEMORY_INFO, c_uint32(0), c_uint32(group), byref(info))
        check("QueryVideoMemoryInfo", code)
        return info
