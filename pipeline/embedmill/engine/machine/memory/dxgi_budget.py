"""Read this process's GPU memory budgets from Windows' DXGI.

Types, numbers and vtable indexes: dxgi1_4.h of the Windows SDK.
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
# Vtable indexes: of IUnknown, IDXGIAdapter1, IDXGIAdapter3 and IDXGIFactory4.
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
    """Memory of an adapter as DXGI reports to this process.

    dedicated_bytes, shared_bytes  the adapter's own memory, and the system memory that the adapter may use
    budget_bytes, own_bytes        budget and use of this process in the adapter's fastest memory (an integrated
                                   adapter's is system memory)
    far_budget_bytes               budget in system memory for a discrete adapter; an integrated one has no such group
                                   (remarks on D3D12_MEMORY_POOL)
    """

    dedicated_bytes: int
    shared_bytes: int
    budget_bytes: int
    own_bytes: int
    far_budget_bytes: int


class DxgiAdapter:
    """Handle of one adapter, held until `close`.

    `luid` is high part << 32 | low part; `library` defaults to the system's dxgi.dll. Raises OSError where the library
    or the adapter is missing.
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
        """Read current figures; raises OSError if the adapter is gone."""
        description = Description()
        check("GetDesc1", call(self._adapter, _GET_DESC_1, byref(description)))
        local, far = self._info(_LOCAL), self._info(_NON_LOCAL)
        return Video(
            dedicated_bytes=description.DedicatedVideoMemory,
            shared_bytes=description.SharedSystemMemory,
            budget_bytes=local.Budget,
            own_bytes=local.CurrentUsage,
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
