"""Decompressed bytes of an input file, by position."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedmill.base.config import MIB, LimitsTable
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.base.signals import checkpoint

BLOCK_BYTES = 4 * MIB
UNKNOWN = sys.maxsize
# Less than this is read soon, however few bytes it was packed in.
ALWAYS_BYTES = 1024 * MIB

_FOREIGN_MAGIC = (
    (b"\x1f\x8b", "gzip data", "let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "let its name end in .zst"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)


class ByteStream:
    """Forward reader of a text file.

    `position` counts decompressed bytes from the start of the file; after a failed read it is unknown until the
    next `seek`. Every method raises InputError where the file is gone, damaged or no longer as it was listed.
    """

    def __init__(self, file: InputFile, limits: LimitsTable | None = None) -> None:
        """Open the file; `limits` bound a compressed file's expansion."""
        self._file = file
        self._expansion = (limits or LimitsTable()).expansion
        self._raw: Any = None
        self.position = 0
        self._open()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        checkpoint()
        start, self.position = self.position, UNKNOWN
        parts: list[bytes] = []
        missing = size
        with translated(self._file):
            # A decompressor may give fewer bytes than asked for long before the end.
            while missing and (part := self._raw.read(missing)):
                parts.append(part)
                missing -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if start == 0:
            _refuse_foreign(data, self._file)
        self._refuse_bomb(start + len(data))
        self.position = start + len(data)
        return data

    def seek(self, position: int) -> None:
        """Go to `position`, in compressed files by reading."""
        if not self._file.compression:
            with translated(self._file):
                self._raw.seek(position)
            self.position = position
            return
        if position < self.position:
            self.close()
            self._open()
        while self.position < position:
            if not self.read(min(BLOCK_BYTES, position - self.position)):
                raise changed(self._file)

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def _refuse_bomb(self, size: int) -> None:
        if self._file.compression and size > max(ALWAYS_BYTES, self._expansion * self._file.size_bytes):
            raise InputError(
                f"{self._file.path}: its {self._file.size_bytes:,} bytes give more than {size:,}; leave it out, or"
                " raise limits.expansion if that is meant"
            )

    def _open(self) -> None:
        self.position = 0
        with translated(self._file):
            require_unchanged(self._file)
            if self._file.compression:
                self._raw = pa.input_stream(self._file.path, compression=self._file.compression)
            else:
                # Unbuffered: reads are of whole blocks, and a buffer would copy each.
                self._raw = io.FileIO(self._file.path)


@contextmanager
def translated(file: InputFile) -> Iterator[None]:
    """Turn exceptions of reading `file` into an InputError."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(
            f"{file.path}: cannot be opened: {error.strerror or error}; check that it is there and readable"
        ) from error
    # pyarrow's memory error is an ArrowException too, so this one comes first.
    except MemoryError as error:
        raise InputError(
            f"{file.path}: unpacking it needs more memory than there is ({str(error) or 'out of memory'});"
            " leave it out, or run it with more memory"
        ) from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        kind = file.compression or file.format
        problem = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"{file.path}: truncated or damaged ({kind}): {problem}; replace the file or leave it out"
        ) from error


def require_unchanged(file: InputFile) -> None:
    """Raise InputError unless the file has the listed size."""
    if Path(file.path).stat().st_size != file.size_bytes:
        raise changed(file)


def changed(file: InputFile) -> InputError:
    """Return the error for a file that changed after planning."""
    return InputError(f"{file.path}: changed since the run was planned; start again once it stays as it is")


def _refuse_foreign(head: bytes, file: InputFile) -> None:
    for magic, content, remedy in _FOREIGN_MAGIC:
        if head.startswith(magic):
            raise InputError(f"{file.path}: holds {content}, not {file.format.upper()} in UTF-8; {remedy}")
