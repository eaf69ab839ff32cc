"""Makes a Linux library ask for an older version of a symbol.

Debian's vkd3d is built against a newer libc than the stable suite has, and one symbol alone holds it there: sqrtf,
whose version 2.43 differs from 2.2.5 in how it sets errno. The layout is that of the System V ABI and of the Linux
Standard Base ("Symbol Versioning").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from hardware.directml.errors import SetupError

_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_NEED = struct.Struct("<HHIII")  # version, entries, file, first entry, next need
_ENTRY = struct.Struct("<IHHII")  # hash of the name, flags, index, name, next entry
_GNU_VERNEED = 0x6FFFFFFE


def retarget(library: Path, wanted: str, version: str, older: str) -> None:
    """Rewrite the need for `version` of the library `wanted` as one for `older`, which must be needed too.

    Raises SetupError where the library is not a 64-bit one with exactly that need.
    """
    data = bytearray(library.read_bytes())
    if data[:6] != b"\x7fELF\x02\x01":
        raise SetupError(f"{library}: expected a 64-bit little-endian ELF file")
    entries = {name: at for file, name, at in _needs(data) if file == wanted}
    if version not in entries or older not in entries:
        raise SetupError(f"{library}: expected needs of {wanted} for {version} and {older}; found {sorted(entries)}")
    digest, _, _, name, _ = _ENTRY.unpack_from(data, entries[older])
    _, flags, index, _, following = _ENTRY.unpack_from(data, entries[version])
    _ENTRY.pack_into(data, entries[version], digest, flags, index, name, following)
    library.write_bytes(data)


def _needs(data: bytearray) -> Iterator[tuple[str, str, int]]:
    """(library, version, offset of the entry) of each version that the file needs."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    sections = [_SECTION.unpack_from(data, table + size * number) for number in range(count)]
    for section in sections:
        if section[1] != _GNU_VERNEED:
            continue
        strings = sections[section[6]][4]
        need = section[4]
        for _ in range(section[7]):
            _, entries, file, first, following = _NEED.unpack_from(data, need)
            at = need + first
            for _ in range(entries):
                *_, name, step = _ENTRY.unpack_from(data, at)
                yield _string(data, strings + file), _string(data, strings + name), at
                at += step
            need += following


def _string(data: bytearray, at: int) -> str:
    return data[at : data.index(0, at)].decode("ascii")
