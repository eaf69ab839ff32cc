"""Digests of input files, whole or sampled."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

from embedmill.base.config import MIB
from embedmill.base.prefetch import Prefetch

WHOLE_BYTES = 64 * MIB
SAMPLES = 64
# hashlib and file reads release the GIL, so threads are enough.
THREADS = 8
# A future of its own for each of many tiny files would cost more than the hashing.
FILES_PER_TASK = 256


def digest(path: str, size_bytes: int) -> str:
    """Return a file's digest: `sha256:HEX` or, sampled, `sampled-sha256:HEX`.

    Files above 64 MiB are sampled: size and 64 evenly spaced blocks of 1 MiB, first and last included. Raises OSError.
    """
    try:
        with io.FileIO(path) as file:
            if size_bytes > WHOLE_BYTES:
                return f"sampled-sha256:{_sampled(file, size_bytes)}"
            whole = hashlib.sha256()
            while block := file.read(MIB):
                whole.update(block)
            return f"sha256:{whole.hexdigest()}"
    except OSError as error:
        # A failed read names no file.
        error.filename = path
        raise


def digests(files: Sequence[tuple[str, int]]) -> list[str]:
    """Return the digest of each (path, size in bytes)."""
    tasks = [files[at : at + FILES_PER_TASK] for at in range(0, len(files), FILES_PER_TASK)]
    left = threading.Event()
    with (
        ThreadPoolExecutor(THREADS) as pool,
        # The main thread consumes what another one waits for: a stop is raised there, and ends the tasks.
        Prefetch(pool.map(partial(_digest_each, left), tasks), depth=1, name="digests", on_close=left.set) as digested,
    ):
        return list(chain.from_iterable(digested))


def _digest_each(left: threading.Event, files: Sequence[tuple[str, int]]) -> list[str]:
    return [digest(path, size) for path, size in files if not left.is_set()]


def _sampled(file: io.FileIO, size_bytes: int) -> str:
    sampled = hashlib.sha256(str(size_bytes).encode())
    for sample in range(SAMPLES):
        file.seek((size_bytes - MIB) * sample // (SAMPLES - 1))
        sampled.update(file.read(MIB))
    return sampled.hexdigest()
