"""The processes that fork runs, and jobs for it, in memory where there is such a place: no trial waits for a disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.failpoints import Failpoints
from tests.crash.trials import Trials


@pytest.fixture(scope="package")
def failpoints() -> Iterator[Failpoints]:
    with Failpoints() as points:
        yield points


@pytest.fixture(scope="package")
def place() -> Iterator[Path]:
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(prefix="embedmill-", dir=memory if usable else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="package")
def five(place: Path, tiny_model: Path, failpoints: Failpoints) -> Trials:
    """Five shards."""
    return Trials(place / "five", tiny_model, failpoints, shards=5)


@pytest.fixture(scope="package")
def twelve(place: Path, tiny_model: Path, failpoints: Failpoints) -> Trials:
    """Twelve shards."""
    return Trials(place / "twelve", tiny_model, failpoints, shards=12)
