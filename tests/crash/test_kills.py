"""Runs killed at random instants, and at every step of a commit, end with what an undisturbed run ends with."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.crash.failpoints import at_once
from tests.crash.steps import ITEM_STEPS, items_of, points_of
from tests.crash.trials import Trials
from tests.crash.watch import read_trace

pytestmark = [pytest.mark.crash, pytest.mark.skipif(os.name == "nt", reason="forks")]

SEED = 20240607
KILLS = int(os.environ.get("EMBEDMILL_KILLS", "200"))


def test_kills_at_random_instants_change_nothing(twelve: Trials, tell: Tell) -> None:
    """The instants are spread evenly over the life of a run; one in ten is killed again while it resumes."""

    def survived(trial: int) -> list[str]:
        draw = random.Random(SEED + trial)
        output = twelve.folder / f"trial {trial}"
        stages = [f"killed {kill(twelve, output, (trial + draw.random()) / KILLS)}"]
        if trial % 10 == 9:
            stages.append(f"killed again {kill(twelve, output, draw.random())}")
        twelve.ends_equal(output, f"seed {SEED}, trial {trial}")
        return stages

    stages = Counter(stage for found in at_once(survived, range(KILLS)) for stage in found)
    tell(f"{KILLS} kills of runs that take {twelve.life_s:.2f} s, seed {SEED}", stages)


def kill(trials: Trials, output: Path, share: float) -> str:
    """Kill a run after a share of a life; where it was by then.

    One that had ended already is run anew: how long a life is is learnt from it, as the machine has other work.
    """
    before = trials.folder / f"before {output.name}"
    if output.exists():
        shutil.copytree(output, before)
    while True:
        [ending] = trials.failpoints.order(trials.words(output), kill_after_s=share * trials.life_s)
        if ending.code == -9:
            kept = committed(before)
            shutil.rmtree(before, ignore_errors=True)
            return stage_of(output, kept, trials.shards)
        assert ending.code == 0
        share = min(share * 0.9, ending.seconds / trials.life_s)
        shutil.rmtree(output)
        if before.exists():
            shutil.copytree(before, output)


def committed(output: Path) -> int:
    """Shards in the ledger."""
    return len(list(output.glob("_ledger/[0-9]*.json")))


def stage_of(output: Path, before: int, shards: int) -> str:
    """How far a killed run had come, by what it left."""
    now = committed(output)
    if (output / "_manifest.json").exists():
        return "after the manifest"
    if now == shards:
        return "between the last shard and the manifest"
    if now > before:
        return "among the shards"
    return "after planning" if (output / "_ledger" / "job.json").exists() else "at start-up or while planning"


def test_a_kill_at_every_step_of_the_first_a_middle_and_the_last_shard_changes_nothing(
    five: Trials, tell: Tell
) -> None:
    """Each step by its name; one in ten is killed again at a step of its resume."""
    points = points_of(read_trace(five.trace))
    cases = [(item, step) for item in items_of(five.shards) for step in ITEM_STEPS]

    def survived(number: int) -> list[tuple[str, str]]:
        item, step = cases[number]
        place, done = f"{item}, {step}", [cases[number]]
        output = five.folder / place.replace("/", " ")
        assert five.failpoints.run(five.words(output), kill_at=points[item, step])[0] == -9, place
        if number % 10 == 9:
            again = random.Random(SEED + number).randrange(points[item, step])
            assert five.failpoints.run(five.words(output), kill_at=again)[0] in (-9, 0), place
            done.append((item, "killed again"))
        five.ends_equal(output, place)
        return done

    trials = Counter(kill for done in at_once(survived, range(len(cases))) for kill in done)
    tell(table(items_of(five.shards), trials))


def table(items: list[str], trials: Counter[tuple[str, str]]) -> str:
    """Items by steps."""
    steps = (*ITEM_STEPS, "killed again")
    lines = [f"{item:26}" + "".join(f"{trials[item, step]:15}" for step in steps) for item in items]
    head = f"{'':26}" + "".join(f"{step:>15}" for step in steps)
    return "\n  ".join([f"{sum(trials.values())} kills at named steps:", head, *lines])
