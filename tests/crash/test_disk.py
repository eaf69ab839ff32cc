"""A disk that is full, or fails, ends a run with one sentence; later the run goes on as if it had not."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.failpoints import Failpoints
from tests.crash.trials import Trials, committed_are_whole, show
from tests.crash.watch import Call, Fault, read_trace

pytestmark = [pytest.mark.crash, pytest.mark.skipif(os.name == "nt", reason="forks")]

LEVELS = 50
PAGE = 4096
SLACK = 4
NAMING = ("replace", "link")
FAILING = ("create", "write", "fsync", *NAMING, "mkdir", "unlink")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB in memory."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def twenty(place: Path, tiny_model: Path, failpoints: Failpoints) -> Trials:
    """Twenty shards, so that most levels are of another number of pages."""
    return Trials(place / "twenty", tiny_model, failpoints, shards=20)


def test_a_disk_that_is_full_at_any_level_is_told_and_the_run_goes_on_when_it_is_not(
    twenty: Trials, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From no page free to nearly as many as an output needs: tmpfs counts by and by, so that the last few may do."""
    output, ballast = disk / "out", disk / "ballast"
    said = str(twenty.folder / "said")
    needed = pages_needed(twenty, disk)
    found: Counter[str] = Counter()
    for level in range(LEVELS):
        free = level * needed // LEVELS
        place = f"{free} of {needed} pages free"
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - free * PAGE))
        [ending] = twenty.failpoints.order(twenty.words(output), said=said)
        if ending.code or free < needed - SLACK:
            twenty.is_refused(ending.code, place)
        kept = committed_are_whole(output, place)
        assert list(output.glob("_tmp/*")) == [], place
        ballast.unlink()
        twenty.ends_equal(output, place)
        found[f"exit code {ending.code} with {kept:2} shards committed"] += 1
    show(capsys, f"{LEVELS} levels of a full disk, an output needs {needed} pages", found)


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
    five: Trials, capsys: pytest.CaptureFixture[str], forever: bool
) -> None:
    """EIO at the n-th call of each kind, for every n; a write leaves its first half."""
    counts = Counter(call.name for call in read_trace(five.trace))
    trace, said = five.folder / "failed.trace", str(five.folder / "said")
    found: Counter[str] = Counter()
    for name in FAILING:
        for number in range(0, counts[name], 3 if forever else 1):
            place = f"{name} {number}"
            output = five.folder / "failed"
            shutil.rmtree(output, ignore_errors=True)
            fault = Fault(name, number, errno.EIO, forever)
            [ending] = five.failpoints.order(five.words(output), fault=fault, trace=str(trace), said=said)
            five.is_refused(ending.code, place)
            assert_no_sync_is_retried(read_trace(trace), place)
            if output.exists():
                committed_are_whole(output, place)
            five.ends_equal(output, place)
            found[f"{name}: exit code 6, then equal"] += 1
    show(capsys, "EIO at every call" if not forever else "EIO from every third call on", found)


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
