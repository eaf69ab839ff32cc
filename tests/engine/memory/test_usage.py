"""The peak of memory use is measured, or unknown with a reason."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from embedmill.engine.machine.memory.probe import MemoryReading, Probe, Scope, unknown
from embedmill.engine.memory.usage import PeakMemory, PeakUsage

ROOT = Path(__file__).parents[3]


class Told(Probe):
    """Readings one after another; the last one for ever."""

    def __init__(self, readings: Sequence[MemoryReading]) -> None:
        self.readings = list(readings)
        self.closed = False

    def read(self) -> MemoryReading:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def close(self) -> None:
        self.closed = True


def reading(used: int | None, own: int | None = None, scope: Scope = "process") -> MemoryReading:
    return MemoryReading(
        used_bytes=used, free_bytes=None, ceiling_bytes=None, scope=scope, source="told", own_bytes=own
    )


def taken(*readings: MemoryReading) -> PeakUsage:
    probe = Told(readings)
    with PeakMemory(probe) as memory:
        deadline = time.monotonic() + 5
        while len(probe.readings) > 1 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert probe.closed
    return memory.usage()


def test_it_is_the_most_above_what_was_there_before() -> None:
    assert taken(reading(100), reading(150), reading(400), reading(90)) == PeakUsage(peak_bytes=300)


def test_what_takes_nothing_more_took_nothing() -> None:
    assert taken(reading(100), reading(60)) == PeakUsage(peak_bytes=0)


def test_the_processs_own_part_counts_where_it_is_told() -> None:
    assert taken(reading(900, 100, "device"), reading(5000, 180, "device")) == PeakUsage(peak_bytes=80)


def test_the_use_of_all_processes_is_named_as_such() -> None:
    found = taken(reading(900, None, "device"), reading(1000, None, "device"))
    assert found == PeakUsage(peak_bytes=100, note="of all processes on the device together")


def test_one_look_that_fails_leaves_it_unknown() -> None:
    found = taken(reading(100), unknown("told", "the driver hung up"), reading(400))
    assert found == PeakUsage(peak_bytes=None, note="the driver hung up")


REAL = """
import time
import numpy as np
from embedmill.engine.memory.attach import probe_of
from embedmill.engine.memory.usage import PeakMemory
from tests.support.works import CPU, target_of

with PeakMemory(probe_of(target_of(CPU))) as memory:
    block = np.ones(8 << 20, np.float64)
    deadline = time.monotonic() + 30
    while (memory.usage().peak_bytes or 0) < 50 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    del block
    memory.stop()
    memory.stop()
print(memory.usage().peak_bytes)
"""


def test_real_memory_of_this_process_is_seen() -> None:
    """In a process of its own: that of the tests gives memory back at any time."""
    done = subprocess.run([sys.executable, "-c", REAL], capture_output=True, text=True, check=True, cwd=ROOT)
    assert 50 << 20 < int(done.stdout) < 200 << 20


def test_what_is_seen_so_far_may_be_asked_for_while_it_looks() -> None:
    probe = Told([reading(100), reading(100), reading(700)])
    with PeakMemory(probe) as memory:
        memory.usage()
        assert memory.usage() == PeakUsage(peak_bytes=600)
        assert not probe.closed
    assert probe.closed
