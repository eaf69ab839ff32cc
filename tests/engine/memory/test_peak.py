"""The most memory that something took, and nothing where that is not known."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.engine.catalogue.entry import DeviceChoice
from pipeline.engine.memory import DeviceFacts
from pipeline.engine.memory import peak as peak_module
from pipeline.engine.memory.peak import PeakMemory, Taken, memory_probe
from pipeline.engine.memory.reading import MemoryReading, Probe, Scope, unknown
from tests.engine.devices import device_of
from tests.engine.works import CPU, provider_of


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


def taken(*readings: MemoryReading) -> Taken:
    probe = Told(readings)
    with PeakMemory(probe) as memory:
        deadline = time.monotonic() + 5
        while len(probe.readings) > 1 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert probe.closed
    return memory.taken()


def test_it_is_the_most_above_what_was_there_before() -> None:
    assert taken(reading(100), reading(150), reading(400), reading(90)) == Taken(peak_bytes=300)


def test_what_takes_nothing_more_took_nothing() -> None:
    assert taken(reading(100), reading(60)) == Taken(peak_bytes=0)


def test_the_processs_own_part_counts_where_it_is_told() -> None:
    assert taken(reading(900, 100, "device"), reading(5000, 180, "device")) == Taken(peak_bytes=80)


def test_the_use_of_all_processes_is_named_as_such() -> None:
    found = taken(reading(900, None, "device"), reading(1000, None, "device"))
    assert found == Taken(peak_bytes=100, words="of all processes on the device together")


def test_one_look_that_fails_leaves_it_unknown() -> None:
    found = taken(reading(100), unknown("told", "the driver hung up"), reading(400))
    assert found == Taken(peak_bytes=None, words="the driver hung up")


def test_real_memory_of_this_process_is_seen() -> None:
    with PeakMemory(memory_probe(CPU, None)) as memory:
        block = np.ones(8 << 20, np.float64)
        time.sleep(0.1)
        del block
        memory.stop()
        memory.stop()
    found = memory.taken().peak_bytes
    assert found is not None
    assert 50 << 20 < found < 200 << 20


@pytest.mark.parametrize(
    ("provider", "device", "word", "facts"),
    [
        (provider_of(memory="vendor"), device_of(kind="cpu"), "host", None),
        (provider_of(memory="dxgi"), device_of(luid="70000", discrete=True), "dxgi",
         DeviceFacts(luid=70000, integrated=False)),
        (provider_of(memory="nvml"), None, "nvml", DeviceFacts(cuda_index=0)),
        (provider_of(memory="nvml", device=DeviceChoice(option="device_id", metadata="number")),
         device_of(1, number="3"), "nvml", DeviceFacts(cuda_index=3)),
        (provider_of(memory="vendor"), device_of(1, luid="none"), "vendor", DeviceFacts()),
    ],
    ids=["the machine's", "by LUID", "CUDA's first", "CUDA's number", "nothing known"],
)  # fmt: skip
def test_the_probe_is_that_of_the_device(
    monkeypatch: pytest.MonkeyPatch, provider: object, device: object, word: str, facts: DeviceFacts | None
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(peak_module, "probe_for", lambda *options: asked.append(options))
    memory_probe(provider, device)  # type: ignore[arg-type]
    assert asked == [(word,) if facts is None else (word, facts)]
