"""DXGI's budgets: GPU memory that Windows allows this process."""

from __future__ import annotations

import ctypes
from ctypes import Structure, byref, c_uint32, c_uint64, c_void_p
from typing import Any
from uuid import UUID

from msgspec import Struct

from embedmill.engine.machine.adapters.com import RELEASE, call_method, check_hresult
from embedmill.engine.machine.adapters.dxgi import describe

# Types, numbers and vtable indexes: dxgi1_4.h of the Windows SDK.
_FACTORY4 = UUID("1bc6ea02-ef36-464f-bf0c-21ca39e5168a").bytes_le
_ADAPTER3 = UUID("645967a4-1392-4310-a798-8053ce3e93fd").bytes_le
_QUERY_VIDEO_MEMORY_INFO, _ENUM_ADAPTER_BY_LUID = 14, 26
# DXGI_MEMORY_SEGMENT_GROUP.
_LOCAL, _NON_LOCAL = 0, 1


class VideoMemoryInfo(Structure):
    """DXGI_QUERY_VIDEO_MEMORY_INFO, in bytes."""

    _fields_ = (
        ("Budget", c_uint64),
        ("CurrentUsage", c_uint64),
        ("AvailableForReservation", c_uint64),
        ("CurrentReservation", c_uint64),
    )


class AdapterMemory(Struct, frozen=True, kw_only=True):
    """Memory of an adapter by DXGI, in bytes.

    dedicated_bytes, shared_bytes  sizes of dedicated memory, and of system memory that the adapter may use
    budget_bytes, own_bytes        budget and use of this process in the local segment group, the fastest memory for
                                   the adapter (for an integrated one system memory)
    far_budget_bytes               budget in the non-local group, the system memory of a discrete adapter; 0 for an
                                   integrated one, which has no such group (remarks on D3D12_MEMORY_POOL)
    """

    dedicated_bytes: int
    shared_bytes: int
    budget_bytes: int
    own_bytes: int
    far_budget_bytes: int


class DxgiAdapter:
    """Open adapter, by LUID (see `DeviceFacts`).

    `library` is dxgi.dll, by default the system's. Raises OSError without the library or the adapter.
    """

    def __init__(self, luid: int, library: Any = None) -> None:
        factory, self._adapter = c_void_p(), c_void_p()
        library = library or ctypes.CDLL("dxgi.dll")
        check_hresult("CreateDXGIFactory1", library.CreateDXGIFactory1(_FACTORY4, byref(factory)))
        try:
            # x64 and ARM64 pass a structure of 8 bytes (LUID) like a number of 8 bytes.
            code = call_method(factory, _ENUM_ADAPTER_BY_LUID, c_uint64(luid), _ADAPTER3, byref(self._adapter))
            check_hresult("EnumAdapterByLuid", code)
        finally:
            call_method(factory, RELEASE)

    def read(self) -> AdapterMemory:
        """Read sizes, budgets and use. Raises OSError after device removal."""
        description = describe(self._adapter)
        near, far = self._info(_LOCAL), self._info(_NON_LOCAL)
        return AdapterMemory(
            dedicated_bytes=description.DedicatedVideoMemory,
            shared_bytes=description.SharedSystemMemory,
            budget_bytes=near.Budget,
            own_bytes=near.CurrentUsage,
            far_budget_bytes=far.Budget,
        )

    def close(self) -> None:
        """Release the adapter."""
        call_method(self._adapter, RELEASE)

    def _info(self, group: int) -> VideoMemoryInfo:
        info = VideoMemoryInfo()
        code = call_method(self._adapter, _QUERY_VIDEO_MEMORY_INFO, c_uint32(0), c_uint32(group), byref(info))
        check_hresult("QueryVideoMemoryInfo", code)
        return info
