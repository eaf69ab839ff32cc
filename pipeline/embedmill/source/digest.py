"""Digests of input files, and later changes."""

from __future__ import annotations

import hashlib
import io
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

from msgspec import structs

from embedmill.base.config import MIB
from embedmill.base.errors import InputError
from embedmill.base.files.state import settled_state, state_of
from embedmill.base.prefetch import Prefetch
from embedmill.base.records import InputFile

# hashlib and file reads release the GIL, so threads are enough.
THREADS = 8
# A future of its own for each of many tiny files would cost more than the hashing.
FILES_PER_TASK = 256
LOG = logging.getLogger("embedmill")
# Takes seconds.
_WORTH_TELLING_BYTES = 8192 * MIB


def with_digests(files: Sequence[InputFile]) -> list[InputFile]:
    """Add digest and state to each file. Raises InputError."""
    total = sum(file.size_bytes for file in files)
    if total > _WORTH_TELLING_BYTES:
        LOG.info("reading the input once for its digest, %d MiB", total // MIB)
    tasks = [files[at : at + FILES_PER_TASK] for at in range(0, len(files), FILES_PER_TASK)]
    left = threading.Event()
    with (
        ThreadPoolExecutor(THREADS) as pool,
        # The main thread consumes what another one waits for: a stop is raised there, and ends the tasks.
        Prefetch(pool.map(partial(_digest_each, left), tasks), depth=1, name="digests", on_close=left.set) as digested,
    ):
        return list(chain.from_iterable(digested))


def with_digest(file: InputFile, left: threading.Event | None = None) -> InputFile:
    """Add digest and state. Raises InputError."""
    try:
        state, digest = settled_state(file.path), hashlib.sha256()
        with io.FileIO(file.path) as opened:
            # Left as soon as nobody waits for it: a file may take minutes.
            while (left is None or not left.is_set()) and (block := opened.read(MIB)):
                digest.update(block)
    except OSError as error:
        remedy = "put it back, and run again" if isinstance(error, FileNotFoundError) else "check permissions"
        raise InputError(f"{file.path}: cannot be read: {error.strerror}; {remedy}") from error
    found = structs.replace(file, size_bytes=state[0], digest=f"sha256:{digest.hexdigest()}", state=state)
    if not is_unchanged(found):
        raise changed(found)
    return found


def is_unchanged(file: InputFile) -> bool:
    """Compare a file with the recorded state."""
    try:
        return state_of(file.path) == file.state
    except OSError:
        return False


def require_unchanged(file: InputFile) -> None:
    """Raise InputError for a changed file, OSError without one."""
    if state_of(file.path) != file.state:
        raise changed(file)


def changed(file: InputFile) -> InputError:
    """Return the error for a file that changed after planning."""
    return InputError(f"{file.path}: changed since the run was planned; start again once it stays as it is")


def _digest_each(left: threading.Event, files: Sequence[InputFile]) -> list[InputFile]:
    return [with_digest(file, left) for file in files if not left.is_set()]
