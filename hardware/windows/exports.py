"""Names that a Windows DLL exports."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_PE_AT = 0x3C
# Offsets in the PE header: number of sections, size and place of the optional header, and its export entry (PE32+).
_SECTIONS, _OPTIONAL_SIZE, _OPTIONAL, _EXPORTS = 6, 20, 24, 112
_SECTION = struct.Struct("<8sIIII16x")


def exports(dll: bytes) -> dict[str, int | None]:
    """Offset of each exported function in the file; None where another DLL has it."""
    header = _number(dll, _PE_AT)
    start, length = struct.unpack_from("<II", dll, header + _OPTIONAL + _EXPORTS)
    sections = list(_sections(dll, header))

    def at(address: int) -> int:
        return next(place + address - begin for begin, size, place in sections if begin <= address < begin + size)

    table = at(start)
    count = _number(dll, table + 24)
    functions, names, ordinals = (at(_number(dll, table + offset)) for offset in (28, 32, 36))
    found = {}
    for index in range(count):
        place = at(_number(dll, names + 4 * index))
        [ordinal] = struct.unpack_from("<H", dll, ordinals + 2 * index)
        address = _number(dll, functions + 4 * ordinal)
        # An address within the table is that of the other DLL's name.
        own = not start <= address < start + length
        found[dll[place : dll.index(0, place)].decode("ascii")] = at(address) if own else None
    return found


def _sections(dll: bytes, header: int) -> Iterator[tuple[int, int, int]]:
    """Address, size and offset in the file of each section."""
    count, size = (struct.unpack_from("<H", dll, header + offset)[0] for offset in (_SECTIONS, _OPTIONAL_SIZE))
    for index in range(count):
        _, virtual, address, stored, place = _SECTION.unpack_from(dll, header + _OPTIONAL + size + 40 * index)
        yield address, max(virtual, stored), place


def _number(dll: bytes, place: int) -> int:
    return int(struct.unpack_from("<I", dll, place)[0])
