"""Methods of Windows' COM interfaces, called by their places in the interface's table."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int32, c_uint32, c_uint64, c_void_p
from typing import Any

# The place of IUnknown's method that gives an interface back.
RELEASE = 2


def call(pointer: c_void_p, place: int, *arguments: Any) -> int:
    """Call the method at a place of an interface's table. On 64 bits Windows has one calling convention."""
    table = ctypes.cast(pointer, POINTER(POINTER(c_void_p)))[0]
    numbers = (c_uint32, c_uint64)
    types = (type(argument) if isinstance(argument, numbers) else c_void_p for argument in arguments)
    method = ctypes.CFUNCTYPE(c_int32, c_void_p, *types)(table[place] or 0)
    return int(method(pointer, *arguments))


def check(what: str, code: int) -> None:
    """Raises OSError with the code where it says that `what` failed."""
    if code < 0:
        raise OSError(f"{what} failed with {code & 0xFFFFFFFF:08X}")
