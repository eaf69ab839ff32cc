"""Calls of Windows' COM methods by vtable index."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_uint32, c_uint64, c_void_p
from typing import Any

# Index of IUnknown::Release.
RELEASE = 2


def call_method(pointer: c_void_p, index: int, *arguments: Any) -> int:
    """Call the method at an index of an interface's vtable."""
    table = ctypes.cast(pointer, POINTER(POINTER(c_void_p)))[0]
    numbers = (c_uint32, c_uint64)
    types = (type(argument) if isinstance(argument, numbers) else c_void_p for argument in arguments)
    # CFUNCTYPE serves for COM's stdcall: on 64 bits Windows has one calling convention.
    method = ctypes.CFUNCTYPE(c_int32, c_void_p, *types)(table[index] or 0)
    return int(method(pointer, *arguments))


def check_hresult(function: str, code: int) -> None:
    """Raise OSError where an HRESULT is a failure."""
    if code < 0:
        raise OSError(f"{function} failed with {code & 0xFFFFFFFF:08X}")
