"""Decompression of input files."""

from __future__ import annotations

import bz2
import lzma
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.base.signals import checkpoint

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz"}
# Raised for damaged and truncated data, besides OSError.
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)
_BLOCK_BYTES = 1 << 18
_LARGEST_WINDOW_LOG = 31
# What xz takes besides its dictionary.
_XZ_STATE_BYTES = 1 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAGIC = {
    "gzip": [b"\x1f\x8b"],
    "bzip2": [b"BZh"],
    "xz": [b"\xfd7zX"],
    # Also a frame to be skipped, such as pzstd writes first.
    "zstd": [_ZSTD_MAGIC, *(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))],
}


def split_ending(name: str) -> tuple[str, str]:
    """Split a name's ending from the ending of a compression."""
    path = PurePath(name.lower())
    return (PurePath(path.stem).suffix, path.suffix) if path.suffix in COMPRESSIONS else (path.suffix, "")


def open_compressed(file: InputFile, window_log: int) -> Any:
    """Open a file as a binary file, decompressed.

    Files of several members, and zeros after the last one, are read. Raises InputError for one without any byte.
    """
    if not file.size_bytes:
        raise InputError(f"{file.path}: has no bytes, so it is no {file.compression} file; replace it or leave it out")
    with Path(file.path).open("rb") as raw:
        head = raw.read(4)
    if not any(head.startswith(magic) for magic in _MAGIC[file.compression]):
        raise InputError(f"{file.path}: holds no {file.compression} data; let its name end as its content is")
    window: dict[int, int] = {zstd.DecompressionParameter.window_log_max: window_log}
    makers: dict[str, Callable[[], Any]] = {
        "gzip": _GzipDecompressor,
        "bzip2": bz2.BZ2Decompressor,
        "xz": partial(lzma.LZMADecompressor, memlimit=(1 << window_log) + _XZ_STATE_BYTES),
        "zstd": partial(zstd.ZstdDecompressor, options=window),
    }
    return Members(file.path, makers[file.compression])


class _GzipDecompressor:
    """Decompressor of one gzip member."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        found = self._member.decompress(self._member.unconsumed_tail + data, max_length)
        # Where the limit is met, more may be held back.
        self.needs_input = len(found) < max_length
        return found


class Members:
    """Reader of concatenated compressed members.

    Zeros between and behind them are padding. The standard library's own files read 8 KiB at a time, and some stop
    without a word where something else follows a member.
    """

    def __init__(self, path: str, make: Callable[[], Any]) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115
        self._make = make
        self._member = make()

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes; raise `DAMAGE`."""
        while True:
            # Members without content may come by the million.
            checkpoint()
            if self._member.eof:
                rest = self._member.unused_data.lstrip(b"\0")
                while not rest and (block := self._file.read(_BLOCK_BYTES)):
                    rest = block.lstrip(b"\0")
                if not rest:
                    return b""
                self._member = self._make()
                data = self._member.decompress(rest, size)
            else:
                block = self._file.read(_BLOCK_BYTES) if self._member.needs_input else b""
                if self._member.needs_input and not block:
                    raise EOFError("the file ends before its last member does")
                data = self._member.decompress(block, size)
            if data:
                return bytes(data)

    def seek(self, position: int) -> None:
        """Go back to the beginning, the only `position`."""
        self._file.seek(position)
        self._member = self._make()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def refuse_window(file: InputFile, window_log: int, problem: str) -> None:
    """Raise InputError where `problem` comes from a larger window."""
    if "Memory usage limit" in problem:
        raise InputError(
            f"{file.path}: its xz dictionary takes more memory than the {1 << window_log:,} bytes that"
            f" limits.window_log = {window_log} allows; raise that (up to {_LARGEST_WINDOW_LOG}), or compress the file"
            " again with `xz -9` or less"
        )
    with Path(file.path).open("rb") as opened:
        header = opened.read(18)
    window = _window_bytes(header) if header.startswith(_ZSTD_MAGIC) else 0
    if window <= 1 << window_log:
        return
    needed = (window - 1).bit_length()
    allow = f"allow it with limits.window_log = {needed}, or " if needed <= _LARGEST_WINDOW_LOG else ""
    raise InputError(
        f"{file.path}: its zstd window of {window:,} bytes takes as much memory, and limits.window_log ="
        f" {window_log} allows {1 << window_log:,}; {allow}compress it again with `zstd --long=27`"
    )


def _window_bytes(header: bytes) -> int:
    """Read the window size of a zstd frame."""
    # RFC 8878, 3.1.1.1.
    header = header.ljust(18, b"\0")
    descriptor, header = header[4], header[5:]
    if not descriptor & 0x20:
        exponent, mantissa = header[0] >> 3, header[0] & 7
        return (1 << (10 + exponent)) // 8 * (8 + mantissa)
    # A single segment: the window is the content.
    flag = descriptor >> 6
    at = (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(header[at : at + (1 << flag)], "little") + (256 if flag == 1 else 0)
