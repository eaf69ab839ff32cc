"""The bytes of an input file, decompressed, by position."""

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

_FOREIGN = (
    (b"\x1f\x8b", "gzip data", "let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "zstd data", "let its name end in .zst"),
    (b"\xff\xfe", "UTF-16 text", "save it as UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "save it as UTF-8"),
)


class ByteStream:
    """Reads a text file forward; `position` counts decompressed bytes from the start of the file.

    After a failed read the position is unknown until the next `seek`. Every method raises InputError
    where the file is gone, damaged or no longer as it was listed.
    """

    def __init__(self, file: InputFile, limits: LimitsTable | None = None) -> None:
        """`limits` bound what a compressed file may give; by default as a config's do."""
        self._file = file
        self._expansion = (limits or LimitsTable()).expansion
        self._raw: Any = None
        self.position = 0
        self._open()

    def read(self, size: int) -> bytes:
        """The next `size` bytes; fewer only at the end of the file."""
        checkpoint()
        start, self.position = self.position, UNKNOWN
        parts: list[bytes] = []
        missing = size
        with translated(self._file):
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
        """Goes to `position`: at once in plain files, else by decompressing what lies before it."""
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
        """Lets go of the file."""
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
                self._raw = io.FileIO(self._file.path)


@contextmanager
def translated(file: InputFile) -> Iterator[None]:
    """Turns what reading `file` raises into an InputError that names it and the remedy."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise InputError(
            f"{file.path}: cannot be opened: {error.strerror or error}; check that it is there and readable"
        ) from error
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
    """Raises InputError where the file has another size than when it was listed."""
    if Path(file.path).stat().st_size != file.size_bytes:
        raise changed(file)


def changed(file: InputFile) -> InputError:
    """The error for a file that is not what it was when the run was planned."""
    return InputError(f"{file.path}: changed since the run was planned; start again once it stays as it is")


def _refuse_foreign(head: bytes, file: InputFile) -> None:
    for magic, what, remedy in _FOREIGN:
        if head.startswith(magic):
            raise InputError(f"{file.path}: holds {what}, not {file.format.upper()} in UTF-8; {remedy}")
