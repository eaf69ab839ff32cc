"""The command line on a job of ten good rows; a server of forks; and the counts that are printed at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import Tell
from tests.hostile.command import Cli
from tests.support.systems import WINDOWS

if TYPE_CHECKING:
    from tests.hostile.forks import Forks


@pytest.fixture
def cli(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(tmp_path, tiny_model, capsys)


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    if WINDOWS:
        pytest.skip("forks, and limits the memory of a process")
    from tests.hostile.forks import Forks

    with Forks() as server:
        yield server


class Tally(Counter[str]):
    """How many cases of a test ended in which way; `name` is what is counted."""

    name = ""


@pytest.fixture
def tally(request: pytest.FixtureRequest, tell: Tell) -> Iterator[Tally]:
    """Counts that are printed when all tests are done."""
    tally = Tally()
    tally.name = request.node.name
    yield tally
    tell(tally.name, tally)
