"""An interrupt at any instruction of the main thread ends a run in good order, and the next run goes on from there."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import embedmill
from embedmill.cli import main
from tests.support.interrupts import Interrupter, Point, nothing_left
from tests.support.jobs import make_config, make_rows, parts_of, words_of, write_jsonl

SEED = 20261125
# How many instructions of each sort are drawn; there are some 25 that enter a block, and 10,000 others.
FEW, SOME, MANY = 3, 8, 400


class Interrupted:
    """A job of two shards, as library call and as command, and the instructions that it passes."""

    def __init__(self, folder: Path, model: Path, signum: signal.Signals) -> None:
        self._folder, self._model, self._signum = folder, model, signum
        self._source = write_jsonl(folder / "a.jsonl", make_rows(20))
        self.job(folder / "warm")()
        tracer = Interrupter()
        tracer(self.job(folder / "undisturbed"))
        self._parts = parts_of(folder / "undisturbed")
        self.points, self.entering = list(tracer.points), tracer.entering()

    def job(self, output: Path) -> Callable[[], Any]:
        """The call of the library, or of the command, which gives its exit code."""
        engine = {"provider": "cpu", "tune": False, "budget_tokens": 32, "streams": 1, "threads": 1}
        config = make_config(self._model, self._source, output, shard={"rows": 10}, engine=engine)
        if self._signum == signal.SIGINT:
            return lambda: embedmill.run(config, quiet=True)
        return partial(main.main, [*words_of(config), "--quiet"])

    def ends_well(self, point: Point) -> None:
        """Interrupt a run at an instruction, look at what is left, and finish it."""
        output, interrupted = self._folder / "out", Interrupter(self._signum, point)
        with nothing_left(self._folder / "tmp"):
            if self._signum == signal.SIGINT:
                with pytest.raises(KeyboardInterrupt):
                    interrupted(self.job(output))
                assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            else:
                assert interrupted(self.job(output)) == 143
        self.job(output)()
        assert parts_of(output) == self._parts
        shutil.rmtree(output)


@pytest.fixture
def interrupted(request: pytest.FixtureRequest, tmp_path: Path, tiny_model: Path) -> Any:
    # A shell starts background jobs with SIGINT ignored, and Python leaves that as it is.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield Interrupted(tmp_path, tiny_model, request.param)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("interrupted", "entering", "others"),
    [
        pytest.param(signal.SIGINT, SOME, FEW, id="library"),
        pytest.param(signal.SIGTERM, FEW, FEW, id="command", marks=pytest.mark.hostile),
        pytest.param(signal.SIGINT, MANY, MANY, id="library, many", marks=pytest.mark.crash),
        pytest.param(signal.SIGTERM, MANY, MANY, id="command, many", marks=pytest.mark.crash),
    ],
    indirect=["interrupted"],
)
def test_an_interrupt_at_any_instruction_leaves_nothing_behind_and_can_be_resumed(
    interrupted: Interrupted, entering: int, others: int
) -> None:
    """Some instructions enter a `with` block: what was acquired has no owner yet that releases it."""
    draw = random.Random(SEED)
    drawn = draw.sample(interrupted.entering, min(entering, len(interrupted.entering)))
    for code, offset in [*drawn, *draw.sample(interrupted.points, others)]:
        try:
            interrupted.ends_well((code, offset))
        except BaseException as error:
            error.add_note(f"seed {SEED}: {code.co_filename}, {code.co_qualname}, at instruction {offset}")
            raise
