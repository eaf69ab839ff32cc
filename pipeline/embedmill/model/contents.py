"""Read JSON files of models; recognise pointers and placeholders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedmill.base.config import MIB
from embedmill.base.errors import ModelError

# Far more than the config of any model.
_JSON_BYTES = 16 * MIB
_HEAD_BYTES = 1024
# How a file begins, what it is then, and what to do. The first two are left by a clone without the files themselves.
_STAND_INS: tuple[tuple[tuple[bytes, ...], str], ...] = (
    (
        (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/"),
        "it is a Git LFS pointer in place of the file; run `git lfs pull` in its folder",
    ),
    (
        (b"/annex/objects/", b"# xet version"),
        "it is a pointer (git-annex or Xet) in place of the file; get the file itself with the tool of its repository",
    ),
    (
        (b"<!doctype", b"<html", b"<?xml", b"<error"),
        "it is a web page saved under this name; download the file itself (on the hub /resolve/, not /blob/)",
    ),
    ((b"\x1f\x8b\x08",), "it is compressed (gzip); unpack it"),
    # The second is the magic number of torch.save before its zip files.
    (
        (b"pk\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cf"),
        "it is a zip archive or a pickle, as PyTorch writes; such weights may run code and are never opened",
    ),
)


def stand_in(path: Path) -> str | None:
    """Describe a file that stands in for another, with remedy.

    None for a file that may be what its name says. Raises OSError.
    """
    # A pipe or device could block or never end.
    if not path.is_file():
        return "it is not a regular file" if path.exists() else _absent(path)
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES + 1)
    if not head:
        return "it is empty; copy or download it again"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginnings, what in _STAND_INS:
        if start.startswith(beginnings):
            return what
    return None if path.suffix == ".json" else _words(head)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ModelError."""
    values = load_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path} is not a JSON object; correct it, or copy it from the source again")
    return values


def load_json(path: Path) -> Any:
    """Read a JSON value. Raises ModelError."""
    try:
        # A pipe or device could block or never end.
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "is missing; the model folder is incomplete"
            raise ModelError(f"{path} {what}, copy it there")
        if path.stat().st_size > _JSON_BYTES:
            raise ModelError(
                f"{path} is larger than {_JSON_BYTES:,} bytes, too large for a config; is it another file?"
            )
        if (reason := stand_in(path)) is not None:
            raise ModelError(f"{path} cannot be read as JSON: {reason}")
        values = json.loads(path.read_text("utf-8-sig"))
        # An escape may make half of a character, which no library takes.
        json.dumps(values, ensure_ascii=False).encode()
        return values
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read as JSON ({error}); correct it, or copy it from the source again"
        ) from error


def _absent(path: Path) -> str:
    return "it is a link to a file that is not there" if path.is_symlink() else "it is missing"


def _words(head: bytes) -> str | None:
    """Quote a short text, such as a download's error."""
    try:
        text = " ".join(head.decode("utf-8").split())
    except UnicodeDecodeError:
        return None
    if len(head) > _HEAD_BYTES or not text.isprintable():
        return None
    return f"it holds the words {text[:80]!r} only; download the file itself"
