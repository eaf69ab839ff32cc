"""A child under real limits can allocate what the host's probe calls free, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.readings import MIB

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these limits")

LIMITED = """
import json, mmap, resource, sys
from embedmill.engine.machine.memory.host import HostProbe
kind = getattr(resource, sys.argv[1])
resource.setrlimit(kind, (1 << 30, resource.RLIM_INFINITY))
probe = HostProbe()
def can(size):
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except OSError:
        return False
    return True
probe.read()
found = probe.read()
margin = 4 << 20
told = [can(found.free_bytes - margin), can(found.free_bytes + margin)]
kept = mmap.mmap(-1, 256 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(json.dumps([found.source, found.ceiling_bytes, found.free_bytes, told, probe.read().free_bytes]))
"""

GROUPED = """
import json, os, sys
from embedmill.engine.machine.memory.host import HostProbe
from embedmill.engine.machine.memory.probe import ceiling
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
probe = HostProbe()
probe.read()
before = probe.read()
most = ceiling(before)
block = bytearray(most)
block[:: 4096] = b"x" * len(block[:: 4096])
after = probe.read()
print(json.dumps([before.source, before.ceiling_bytes, before.free_bytes, most, after.free_bytes, after.own_bytes]))
"""

# A process beside this one in the same group takes half of what is free, and gives it back when its input ends.
SHARED = """
import json, os, subprocess, sys, time
from embedmill.engine.machine.memory import probe_for, reserve
from embedmill.engine.memory.watch import Watch
from embedmill.engine.memory.pressure import Policy, Pressure
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
probe = probe_for("host")
probe.read()
first = probe.read()
pressure = Pressure(Policy(reserve_bytes=first.free_bytes * 3 // 5, hold_s=0.2, ease=1.1), first)
began = time.monotonic()
def until(scale):
    while pressure.scale != scale and time.monotonic() - began < 40:
        pressure.observe_memory(watch.latest(), time.monotonic() - began)
        time.sleep(0.01)
hog = "import sys; block = bytearray(b'x') * int(sys.argv[1]); print(flush=True); sys.stdin.read()"
with Watch(probe, every_s=0.02) as watch:
    until(1.0)
    command = [sys.executable, "-c", hog, str(first.free_bytes // 2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        until(0.5)
        other.stdin.close()
    until(1.0)
print(json.dumps([[change.to_scale, change.reason] for change in pressure.changes]))
"""


def child(program: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
def test_a_resource_limit_leaves_what_is_told_and_no_more(name: str) -> None:
    source, limit, free, told, after = child(LIMITED, name)
    assert (source, limit) == (name, 1 << 30)
    assert told == [True, False]
    assert abs(free - after - 256 * MIB) < 4 * MIB


@pytest.fixture
def inner_group() -> Iterator[Path]:
    """A control group of 128 MiB in one of 512 MiB, below this process's own; gone afterwards."""
    from embedmill.engine.machine.cgroups import _groups

    groups = [
        (Path("/") / version.mount / path, version.limits[0])
        for version, path in _groups(Path("/proc/self/cgroup").read_text())
        if (Path("/") / version.mount / path / version.usage).exists()
    ]
    if not groups:
        pytest.skip("this process is in no control group that counts memory")
    folder, file = groups[0]
    outer = folder / f"embedmill-{os.getpid()}"
    inner = outer / "inner"
    try:
        for group, size in ((outer, 512 * MIB), (inner, 128 * MIB)):
            group.mkdir()
            (group / file).write_text(str(size))
    except OSError as error:
        for group in (inner, outer):
            if group.is_dir():
                group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield inner
    inner.rmdir()
    outer.rmdir()


def test_the_ceiling_can_be_taken_under_a_real_control_group(inner_group: Path) -> None:
    source, limit, free, most, after, own = child(GROUPED, str(inner_group / "cgroup.procs"))
    assert "/inner (memory." in source
    assert limit == 128 * MIB
    assert 0 < free <= 128 * MIB
    assert abs(free - most - after) < 4 * MIB
    assert own > most


def test_what_another_process_takes_for_real_shrinks_the_budget_until_it_is_gone(inner_group: Path) -> None:
    (shrunk, why), (grown, _) = child(SHARED, str(inner_group / "cgroup.procs"))
    assert (shrunk, grown) == (0.5, 1.0)
    assert "/inner (memory." in why
    assert "other processes took" in why
