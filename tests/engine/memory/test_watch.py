"""The watch reads in the background, cheaply, and leaves no thread behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import msgspec
import pytest

from embedmill.engine.machine.memory import probe_for
from embedmill.engine.machine.memory.probe import MemoryReading, Probe, unknown
from embedmill.engine.memory.watch import Watch, WatchSummary
from tests.support.readings import GIB, LOST, device
from tests.support.systems import WINDOWS


class Told(Probe):
    """Says what it is told to say, and repeats the last."""

    def __init__(self, *readings: MemoryReading) -> None:
        self.readings, self.looks = list(readings), 0

    def read(self) -> MemoryReading:
        self.looks += 1
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_what_was_seen_is_kept_with_its_extremes() -> None:
    probe = Told(device(5 * GIB), device(2 * GIB), LOST, device(3 * GIB))
    with Watch(probe, every_s=0.001) as watch:
        until(lambda: probe.looks >= 5)
    seen = watch.summary()
    assert seen.samples == probe.looks
    assert (seen.unknown, seen.reasons) == (1, {"GPU is lost": 1})
    assert (seen.free_bytes, seen.used_bytes) == ((2 * GIB, 5 * GIB), (3 * GIB, 6 * GIB))
    assert seen.last == device(3 * GIB)
    assert [point.free_bytes for point in seen.series][:4] == [5 * GIB, 2 * GIB, None, 3 * GIB]
    assert seen.series[0].at_s >= 0
    # Windows counts the time of threads in steps of 15.6 ms.
    assert (0 if WINDOWS else 1e-9) <= seen.cpu_s < seen.wall_s + 1


def test_a_probe_that_fails_half_way_does_not_end_the_watch() -> None:
    probe = Told(device(5 * GIB), LOST)
    with Watch(probe, every_s=0.001) as watch:
        until(lambda: watch.summary().unknown > 3)
        assert watch.latest() == LOST
        assert watch.summary().last == device(5 * GIB)
        probe.readings[:] = [device(GIB)]
        until(lambda: watch.latest() == device(GIB))


def test_many_different_reasons_do_not_fill_the_report() -> None:
    told = Told(*(unknown("NVML", f"lost {number}") for number in range(50)))
    with Watch(told, every_s=0.001) as watch:
        until(lambda: told.looks >= 55)
    assert len(watch.summary().reasons) == 8


def test_before_the_first_look_nothing_is_known() -> None:
    found = Watch(Told(device(GIB))).latest()
    assert (found.free_bytes, found.reason) == (None, "memory has not been read yet")


def test_a_reading_that_is_old_says_nothing_of_now() -> None:
    now = [100.0]
    with Watch(Told(device(GIB)), every_s=0.001, clock=lambda: now[0]) as watch:
        until(lambda: watch.summary().samples > 0)
    now[0] = 105.0
    assert watch.latest() == device(GIB)
    now[0] = 105.1
    assert (watch.latest().free_bytes, watch.latest().reason) == (None, "the last reading is 5 s old")


def test_a_look_that_hangs_keeps_neither_the_run_nor_its_end() -> None:
    inside, go_on = threading.Event(), threading.Event()

    class Hanging(Told):
        def read(self) -> MemoryReading:
            inside.set()
            go_on.wait(30)
            return device(GIB)

    before = set(threading.enumerate())
    with Watch(Hanging(device(GIB)), patience_s=0.05) as watch:
        assert inside.wait(30)
        assert watch.latest().free_bytes is None
        began = time.monotonic()
    assert time.monotonic() - began < 5
    (hung,) = set(threading.enumerate()) - before
    assert hung.daemon
    go_on.set()
    hung.join(30)


def test_a_dear_probe_is_looked_through_less_often_and_stopping_does_not_wait_for_it() -> None:
    """A reading that costs 20 ms of a core is due every 5 seconds, after the first few."""

    class Dear(Told):
        def read(self) -> MemoryReading:
            end = time.thread_time() + 0.02
            while time.thread_time() < end:
                pass
            return super().read()

    probe = Dear(device(GIB))
    began = time.monotonic()
    with Watch(probe, every_s=0.001) as watch:
        until(lambda: probe.looks > 2)
        assert time.monotonic() - began < 4
        time.sleep(0.3)
        began = time.monotonic()
    assert probe.looks == 3
    assert time.monotonic() - began < 1
    assert watch.summary().cpu_s >= 0.06


def test_a_look_that_has_begun_is_waited_for() -> None:
    """The probe may be closed right after."""
    ended: list[float] = []

    class Slow(Told):
        def read(self) -> MemoryReading:
            self.looks += 1
            time.sleep(0.3)
            ended.append(time.monotonic())
            return device(GIB)

    probe = Slow(device(GIB))
    with Watch(probe):
        until(lambda: probe.looks > 0)
    assert len(ended) == probe.looks


def test_what_was_seen_can_be_written_into_a_report() -> None:
    probe = Told(device(GIB), LOST)
    with Watch(probe, every_s=0.001) as watch:
        until(lambda: probe.looks > 3)
    seen = watch.summary()
    assert msgspec.json.decode(msgspec.json.encode(seen), type=WatchSummary) == seen


def test_the_watch_ends_when_the_run_fails() -> None:
    with pytest.raises(KeyError), Watch(Told(device(GIB))):
        raise KeyError


def test_the_host_is_watched_for_less_than_half_a_percent_of_a_core() -> None:
    """By the processor time that the watch reports, at the default period."""
    probe = probe_for("host")
    with Watch(probe, every_s=0.1) as watch:
        time.sleep(1.0)
    seen = watch.summary()
    assert seen.samples >= 2
    per_look_s = seen.cpu_s / seen.samples
    assert per_look_s / 0.5 < 0.005
    assert seen.last is not None
    assert seen.last.scope == "process"
