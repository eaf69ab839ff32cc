"""Call methods of Windows' COM interfaces by vtable index."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_uint32, c_uint64, c_void_p
from typing import Any

# Vtable index of IUnknown::Release.
RELEASE = 2


def call(pointer: c_void_p, index: int, *arguments: Any) -> int:
    """Call a method of a COM interface by vtable index."""
    table = ctypes.cast(pointer, POINTER(POINTER(c_void_p)))[0]
    numbers = (c_uint32, c_uint64)
    types = (type(argument) if isinstance(argument, numbers) else c_void_p for argument in arguments)
    # CFUNCTYPE will do: on 64 bits Windows has one calling convention.
    method = ctypes.CFUNCTYPE(c_int32, c_void_p, *types)(table[index] or 0)
    return int(method(pointer, *arguments))


def check(function: str, code: int) -> None:
    """Raise OSError if a function's HRESULT says failure."""
    if code < 0:
        raise OSError(f"{function} failed with {code & 0xFFFFFFFF:08X}")
