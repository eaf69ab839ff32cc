"""A power loss after any call of a run tears nothing in the ledger, and the run is finished as if it had not been."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from embedmill.sink.folder import read_job
from tests.conftest import Tell
from tests.crash.failpoints import at_once
from tests.crash.power import Disk, Tree, below, inside
from tests.crash.steps import ITEM_STEPS, items_of, points_of
from tests.crash.trials import Trials, committed_are_whole
from tests.crash.watch import read_trace

pytestmark = [pytest.mark.crash, pytest.mark.skipif(sys.platform != "linux", reason="forks, and asks /proc for paths")]


def put(tree: Tree, folder: Path) -> Path:
    """Make a tree."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in tree.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)
    return folder


def content_of(folder: Path) -> Tree:
    """A folder as a tree; the lock, which is never more than a name, left out."""
    paths = [path for path in folder.rglob("*") if path.name != "_run.lock"]
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def test_every_byte_of_an_output_is_in_the_record_of_the_calls(five: Trials) -> None:
    """So that what follows is about all that a run writes."""
    disk = Disk(str(five.folder))
    for call in inside(read_trace(five.trace), str(five.folder)):
        disk.make(call)
    assert below(disk.tree(), "undisturbed") == content_of(five.undisturbed)


def test_a_power_loss_after_any_call_tears_nothing_and_the_run_is_finished(five: Trials, tell: Tell) -> None:
    disk, states = Disk(str(five.folder)), dict[str, tuple[str, Tree]]()
    kinds: Counter[str] = Counter()
    calls = inside(read_trace(five.trace), str(five.folder))
    for number, call in enumerate(calls):
        disk.make(call)
        for kind, tree in disk.losses():
            kinds[f"states: {kind}"] += 1
            left = below(tree, "undisturbed")
            state = hashlib.sha256(repr(sorted(left.items())).encode()).hexdigest()
            states.setdefault(state, (f"after call {number} ({call.name} {call.paths}), {kind}", left))

    def resumed(state: str) -> str:
        place, left = states[state]
        output = put(left, five.folder / f"after power loss {state}")
        read_job(output)
        committed = committed_are_whole(output, place)
        five.ends_equal(output, place)
        return f"of them unlike, resumed: with {committed} shards committed"

    kinds.update(at_once(resumed, states))
    tell(f"power lost after each of {len(calls)} calls", kinds)


def test_what_a_run_leaves_is_safe_when_it_ends_though_one_before_it_was_killed(five: Trials, tell: Tell) -> None:
    """The one before may have been killed between giving a name and syncing its folder. `_tmp` may come back."""
    points = points_of(read_trace(five.trace))
    kills = {f"{item}, {step}": points[item, step] for item in items_of(five.shards) for step in ITEM_STEPS}
    kills |= {f"at point {point}": point for point in range(points["_ledger/job.json", "tmp created"])}

    def lost(place: str) -> None:
        output = five.folder / f"in two runs, {place.replace('/', ' ')}"
        trace, left = five.folder / f"{output.name}.trace", five.folder / f"left, {output.name}"
        disk = Disk(str(five.folder))
        for options in ({"kill_at": kills[place]}, {}):
            code, _ = five.failpoints.run(five.words(output), trace=str(trace), **options)
            assert code == (-9 if options else 0), place
            for call in inside(read_trace(trace), str(five.folder)):
                disk.make(call)
        for kind, tree in disk.losses():
            kept = below({path: data for path, data in tree.items() if "/_tmp" not in path}, output.name)
            five.is_equal(put(kept | {"_run.lock": b""}, left), f"{place}: {kind}")
        shutil.rmtree(output)
        shutil.rmtree(left)

    at_once(lost, kills)
    tell("power lost after the end of a resumed run", {"kills of the run before it": len(kills)})
