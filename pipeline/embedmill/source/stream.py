"""Decompressed bytes of an input file, by position."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from embedmill.base.config import MIB, LimitsTable, RunConfig
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.base.signals import checkpoint
from embedmill.source.compression import DAMAGE, open_compressed, refuse_window
from embedmill.source.digest import changed, require_unchanged
from embedmill.source.encoding import UTF8, Utf8Reader, encoding_of

BLOCK_BYTES = 4 * MIB
UNKNOWN = sys.maxsize
# Less than this is read soon, however few bytes it was packed in.
ALWAYS_BYTES = 1024 * MIB
_HEAD_BYTES = 64
_DEFAULT_LIMITS = LimitsTable()
# What pyarrow says of intact files: dictionaries that differ over row groups, null lists of a fixed length.
_NOT_READ = re.compile(r"Dictionary mismatch|all lists to be of size|spanned by list offsets")

_FOREIGN = (
    (rb"\x1f\x8b", "gzip data", "let its name end in .gz"),
    (rb"\x28\xb5\x2f\xfd", "zstd data", "let its name end in .zst"),
    (rb"BZh[1-9]1AY&SY", "bzip2 data", "let its name end in .bz2"),
    (rb"\xfd7zXZ\0", "xz data", "let its name end in .xz"),
    (rb"PAR1\x15", "Parquet data", "let its name end in .parquet"),
    (rb"PK\x03\x04", "a ZIP archive", "unpack it"),
    (rb"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself with `git lfs pull`"),
    (rb"(?:[^\0]\0{3}){4}", "UTF-32 text without a byte order mark", 'set input.encoding = "utf-32-le"'),
    (rb"(?:\0{3}[^\0]){4}", "UTF-32 text without a byte order mark", 'set input.encoding = "utf-32-be"'),
    (rb"(?:[^\0]\0){8}", "UTF-16 text without a byte order mark", 'set input.encoding = "utf-16-le"'),
    (rb"(?:\0[^\0]){8}", "UTF-16 text without a byte order mark", 'set input.encoding = "utf-16-be"'),
)


class ByteStream:
    """Forward reader of a text file.

    Bytes are decompressed and in UTF-8, with the byte order marks of UTF-8 that the file has. `position` counts them
    from the start; after a failed read it is unknown until the next `seek`. `encoding` is that of the file. Every
    method raises InputError where the file is gone, damaged or no longer as it was listed.
    """

    def __init__(self, file: InputFile, config: RunConfig) -> None:
        """Open the file. Raises ConfigError for an unknown encoding."""
        self._file = file
        self._wanted = config.input.encoding
        self._limits = config.limits
        self._raw: Any = None
        self.encoding = UTF8
        self.position = 0
        self._open()

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer only at the end."""
        checkpoint()
        start, self.position = self.position, UNKNOWN
        parts: list[bytes] = []
        missing = size
        with translated(self._file, self._limits):
            # A decompressor may give fewer bytes than asked for long before the end.
            while missing and (part := self._raw.read(missing)):
                parts.append(part)
                missing -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._refuse_bomb(start + len(data))
        self.position = start + len(data)
        return data

    def seek(self, position: int) -> None:
        """Go to `position`, in compressed or transcoded files by reading."""
        if not self._file.compression and self.encoding == UTF8:
            with translated(self._file, self._limits):
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
        if self._file.compression and size > max(ALWAYS_BYTES, self._limits.expansion * self._file.size_bytes):
            raise InputError(
                f"{self._file.path}: its {self._file.size_bytes:,} bytes give more than {size:,}; leave it out, or"
                " raise limits.expansion if that is meant"
            )

    def _encoding(self, head: bytes) -> str:
        try:
            # An empty file is in any encoding.
            return encoding_of(head, self._wanted) if head else UTF8
        except InputError as error:
            raise InputError(f"{self._file.path}: {error}") from error

    def _open(self) -> None:
        self.position = 0
        with translated(self._file, self._limits):
            require_unchanged(self._file)
            if self._file.compression:
                self._raw = open_compressed(self._file, self._limits.window_log)
            else:
                # Unbuffered: reads are of whole blocks, and a buffer would copy each.
                self._raw = io.FileIO(self._file.path)
            try:
                head = self._raw.read(_HEAD_BYTES)
                self._raw.seek(0)
                self.encoding = self._encoding(head)
                if self.encoding == UTF8:
                    refuse_foreign(head, self._file)
                else:
                    self._raw = Utf8Reader(self._raw, self.encoding)
            except BaseException:
                self._raw.close()
                raise


@contextmanager
def translated(file: InputFile, limits: LimitsTable = _DEFAULT_LIMITS) -> Iterator[None]:
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
    except (pa.ArrowException, OSError, UnicodeDecodeError, *DAMAGE) as error:
        if isinstance(error, DAMAGE):
            refuse_window(file, limits.window_log, str(error))
        raise InputError(f"{file.path}: {_cause(error, file)}") from error


def _cause(error: Exception, file: InputFile) -> str:
    """Name what is wrong with a file, and the remedy."""
    kind = file.compression or file.format
    problem = str(error).partition("\n")[0].rstrip(".")
    if "crypt" in problem:
        return f"is encrypted ({problem}); decrypt it first"
    if isinstance(error, pa.ArrowNotImplementedError) or _NOT_READ.search(problem):
        return f"uses a feature of {kind} that is not read ({problem}); write it anew without that"
    return f"truncated or damaged ({kind}): {problem}; replace the file or leave it out"


def refuse_foreign(head: bytes, file: InputFile) -> None:
    """Raise InputError for first bytes of another file type."""
    for pattern, content, remedy in _FOREIGN:
        if re.match(pattern, head, re.DOTALL):
            remedy = "unpack it" if file.compression else remedy
            raise InputError(f"{file.path}: holds {content}, not {file.format.upper()}; {remedy}")
