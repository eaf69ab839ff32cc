"""Digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from embedmill.base.config import MIB
from embedmill.base.signals import checkpoint


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the sha256 of concatenated files, hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(MIB):
                digest.update(block)
                checkpoint()
    return digest.hexdigest()


def first_mismatch(folder: Path, digests: Mapping[str, str]) -> Path | None:
    """Return a folder's first missing or differing file, else None."""
    paths = ((folder / name, recorded) for name, recorded in digests.items())
    return next((path for path, recorded in paths if not path.is_file() or sha256_of([path]) != recorded), None)
