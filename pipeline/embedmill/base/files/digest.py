"""Digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from embedmill.base.signals import checkpoint

_BLOCK_BYTES = 1 << 20


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the sha256 of concatenated files, hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                checkpoint()
    return digest.hexdigest()


def first_mismatch(folder: Path, digests: Mapping[str, str]) -> Path | None:
    """Compare files of a folder with their sha256 by name: the first one that is missing or differs."""
    for name, recorded in digests.items():
        path = folder / name
        if not path.is_file() or sha256_of([path]) != recorded:
            return path
    return None
