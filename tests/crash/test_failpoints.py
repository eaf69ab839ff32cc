"""A run that is killed before or after any of its calls that change the file system ends as if it had not been."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from embedmill.base.config import RunConfig
from embedmill.jobs.run import run
from embedmill.sink.verify import verify
from tests.crash.failpoints import Failpoints, at_once
from tests.crash.trials import FIXED
from tests.support.jobs import files_of, make_config, make_rows, parts_of, words_of, write_jsonl

pytestmark = pytest.mark.skipif(os.name == "nt", reason="forks")
EVERY = 12


class Job:
    """Fifteen rows in three shards, one row of which is quarantined, and what an undisturbed run makes of them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder = folder
        self.model = model
        rows = [row | {"text": None} if number == 7 else row for number, row in enumerate(make_rows(15))]
        self.source = write_jsonl(folder / "a.jsonl", rows)
        run(self.config("undisturbed"), quiet=True)
        self.parts = parts_of(folder / "undisturbed")
        self.files = files_of(folder / "undisturbed")

    def config(self, name: str) -> RunConfig:
        tables = {"shard": {"rows": 5}, "rows": {"max_quarantined": 1}, "engine": FIXED}
        return make_config(self.model, self.source, self.folder / name, **tables)

    def survives(self, failpoints: Failpoints, point: int, again: int | None = None) -> None:
        """Kill a run at a point, and its resume at another; then finish it and compare."""
        place = f"killed at {point} and {again}"
        config = self.config(place)
        output = Path(config.output.path)
        assert failpoints.run(words_of(config), kill_at=point)[0] == -9, place
        if again is not None:
            assert failpoints.run(words_of(config), kill_at=again)[0] in (-9, 0), place
        assert failpoints.run(words_of(config))[0] == 0, place
        assert parts_of(output) == self.parts, place
        assert files_of(output) == self.files, place
        assert verify(output).problems == [], place
        shutil.rmtree(output)


@pytest.fixture(scope="module")
def job(place: Path, tiny_model: Path) -> Job:
    return Job(place / "failpoints", tiny_model)


@pytest.fixture(scope="module")
def points(job: Job, failpoints: Failpoints) -> int:
    """How many points an undisturbed run passes."""
    code, points = failpoints.run(words_of(job.config("counted")))
    assert code == 0
    assert points > 50, "the calls are seen"
    return points


def test_a_kill_at_every_twelfth_point_loses_nothing(job: Job, failpoints: Failpoints, points: int) -> None:
    at_once(lambda point: job.survives(failpoints, point), range(0, points, EVERY))


@pytest.mark.crash
def test_a_kill_at_any_point_loses_nothing(job: Job, failpoints: Failpoints, points: int) -> None:
    at_once(lambda point: job.survives(failpoints, point), range(points))


@pytest.mark.crash
def test_a_kill_at_every_third_point_of_a_resume_loses_nothing(job: Job, failpoints: Failpoints, points: int) -> None:
    at_once(lambda point: job.survives(failpoints, points // 2, again=point), range(0, points, 3))
