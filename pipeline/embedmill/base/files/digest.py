"""Digests of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from embedmill.base.signals import checkpoint

_BLOCK_BYTES = 1 << 20


def sha256_of(paths: Iterable[Path]) -> str:
    """Hash the bytes of files, one after another: sha256 in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
                checkpoint()
    return digest.hexdigest()
