"""A disk that is full, or fails, ends a run with one sentence; later the run goes on as if it had not."""

from __future__ import annotations

import errno
import os
import queue
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Tell
from tests.crash.failpoints import AT_ONCE, Failpoints, at_once
from tests.crash.trials import Trials, committed_are_whole
from tests.crash.watch import Call, Fault, read_trace

pytestmark = [pytest.mark.crash, pytest.mark.skipif(os.name == "nt", reason="forks")]

LEVELS = 50
PAGE = 4096
SLACK = 4
NAMING = ("replace", "link")
FAILING = ("create", "write", "fsync", *NAMING, "mkdir", "unlink")


Disks = queue.Queue[Path]


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    """File systems of one MiB in memory, one for each trial that goes on."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount")
    mounted = [tmp_path / f"disk {number}" for number in range(AT_ONCE)]
    idle: Disks = queue.Queue()
    for folder in mounted:
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this machine does not let us mount")
        idle.put(folder)
    yield idle
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def twenty(place: Path, tiny_model: Path, failpoints: Failpoints) -> Trials:
    """Twenty shards, so that most levels are of another number of pages."""
    return Trials(place / "twenty", tiny_model, failpoints, shards=20)


def test_a_disk_that_is_full_at_any_level_is_told_and_the_run_goes_on_when_it_is_not(
    twenty: Trials, disks: Disks, tell: Tell
) -> None:
    """From no page free to nearly as many as an output needs: tmpfs counts by and by, so that the last few may do."""
    disk = disks.get()
    needed = pages_needed(twenty, disk)
    disks.put(disk)

    def ended(level: int) -> str:
        disk, free = disks.get(), level * needed // LEVELS
        place, output, ballast = f"{free} of {needed} pages free", disk / "out", disk / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free * PAGE))
        [ending] = twenty.failpoints.order(twenty.words(output), said=str(twenty.told(output)))
        if ending.code or free < needed - SLACK:
            twenty.is_refused(ending.code, output, place)
        kept = committed_are_whole(output, place)
        assert list(output.glob("_tmp/*")) == [], place
        ballast.unlink()
        twenty.ends_equal(output, place)
        disks.put(disk)
        return f"exit code {ending.code} with {kept:2} shards committed"

    found = Counter(at_once(ended, range(LEVELS)))
    tell(f"{LEVELS} levels of a full disk, an output needs {needed} pages", found)


def pages_needed(trials: Trials, disk: Path) -> int:
    """What an undisturbed run takes at its most: the least that is free when it ends well, found by halving."""
    enough, little = shutil.disk_usage(disk).free // PAGE, 0
    while enough - little > 1:
        free = (enough + little) // 2
        ballast, output = disk / "ballast", disk / "out"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free * PAGE))
        code, _ = trials.failpoints.run(trials.words(output))
        enough, little = (enough, free) if code else (free, little)
        ballast.unlink()
        shutil.rmtree(output, ignore_errors=True)
    return enough


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from then on"])
def test_an_error_of_any_call_is_told_and_the_run_goes_on_when_there_is_none(
    five: Trials, tell: Tell, forever: bool
) -> None:
    """EIO at the n-th call of each kind, for every n; a write leaves its first half."""
    counts = Counter(call.name for call in read_trace(five.trace))
    cases = [(name, number) for name in FAILING for number in range(0, counts[name], 3 if forever else 1)]

    def ended(case: tuple[str, int]) -> str:
        name, number = case
        place = f"{name} {number}"
        output, trace = five.folder / f"failed {place}", five.folder / f"failed {place}.trace"
        fault, said = Fault(name, number, errno.EIO, forever), str(five.told(output))
        [ending] = five.failpoints.order(five.words(output), fault=fault, trace=str(trace), said=said)
        five.is_refused(ending.code, output, place)
        assert_no_sync_is_retried(read_trace(trace), place)
        if output.exists():
            committed_are_whole(output, place)
        five.ends_equal(output, place)
        return f"{name}: exit code 6, then equal"

    found = Counter(at_once(ended, cases))
    tell("EIO at every call" if not forever else "EIO from every third call on", found)


def assert_no_sync_is_retried(calls: list[Call], place: str) -> None:
    """What could not be synced is never synced again, nor given a name: it is removed."""
    for at, call in enumerate(calls):
        if call.name == "fsync" and call.failed:
            later = [other for other in calls[at + 1 :] if call.paths[0] in other.paths]
            assert [other.name for other in later if other.name not in ("unlink", "rmdir")] == [], place


def test_a_name_whose_folder_could_not_be_synced_is_taken_back_and_written_anew(five: Trials) -> None:
    """A later sync of the folder could say that all is well though the name is lost."""
    calls = read_trace(five.trace)
    syncs = [call for call in calls if call.name == "fsync"]
    trace, output = five.folder / "failed.trace", five.folder / "taken back"
    for at, call in enumerate(calls):
        if call.name not in NAMING:
            continue
        number = sum(other.name == "fsync" for other in calls[:at])
        name = Path(call.paths[1]).relative_to(five.undisturbed)
        assert syncs[number].paths == [str((five.undisturbed / name).parent)], "the sync after a naming is the folder's"
        five.failpoints.run(five.words(output), fault=Fault("fsync", number), trace=str(trace))
        assert not (output / name).exists(), name
        [_] = five.failpoints.order(five.words(output), trace=str(trace))
        named = [other.paths[1] for other in read_trace(trace) if other.name in NAMING]
        assert str(output / name) in named, name
        five.is_equal(output, str(name))
        shutil.rmtree(output)
