"""DXGI and PDH are joined by LUID; free memory is the least of their limits."""

from __future__ import annotations

import ctypes
import sys
import threading
import time

import pytest

from embedmill.engine.machine.memory.dxgi_budget import AdapterMemory, VideoMemoryInfo
from embedmill.engine.machine.memory.pdh import AdapterUse, CounterValue, counter_path
from embedmill.engine.machine.memory.windows import WindowsProbe, headroom
from tests.engine.machine.memory.win import NO_DATA, NO_INSTANCE, NO_OBJECT, NOT_FOUND, REMOVED, Dxgi, Pdh
from tests.support.readings import GIB, MIB

LUID = 0xD2C4
INSTANCE = r"\GPU Adapter Memory(luid_0x00000000_0x0000D2C4_phys_0)" + "\\"
OTHER = r"\GPU Adapter Memory(luid_0x00000000_0x0000EEEE_phys_0)" + "\\"


def plenty() -> int:
    """RAM that is never the tightest limit."""
    return 20 * GIB


@pytest.fixture
def radeon() -> Dxgi:
    """A card of 16 GiB; Windows keeps some of it from this process, which uses 2 GiB."""
    card = Dxgi(LUID, dedicated=16 * GIB, shared=15 * GIB)
    card.budget, card.used, card.far = 14 * GIB, 2 * GIB, 14 * GIB
    return card


@pytest.fixture
def arc() -> Dxgi:
    """An Arc 130V: 128 MiB of its own, half of 11.65 GB of RAM to share."""
    card = Dxgi(LUID, dedicated=128 * MIB, shared=5965 * MIB)
    card.budget, card.used = 5400 * MIB, 1000 * MIB
    return card


def counters(dedicated: int, shared: int, committed: int) -> Pdh:
    mine = {"Dedicated Usage": dedicated, "Shared Usage": shared, "Total Committed": committed}
    others = {f"{OTHER}{name}": 1 for name in mine}
    return Pdh({f"{INSTANCE}{name}": value for name, value in mine.items()} | others)


def test_the_layouts_are_those_of_64_bit_windows() -> None:
    assert (ctypes.sizeof(VideoMemoryInfo), ctypes.sizeof(CounterValue)) == (32, 16)
    assert (CounterValue.Status.size, CounterValue.Value.offset) == (4, 8)


def test_a_counter_is_called_by_the_luid_in_english() -> None:
    assert counter_path(0x1_0000_D2C4, "Shared Usage") == (
        r"\GPU Adapter Memory(luid_0x00000001_0x0000D2C4_phys_0)\Shared Usage"
    )
    assert "luid_0xFFFFFFFF_0x00000001" in counter_path(0xFFFF_FFFF_0000_0001, "Shared Usage")


def test_a_discrete_card_leaves_what_no_process_uses(radeon: Dxgi) -> None:
    """Others use 5 GiB, of which no budget speaks."""
    found = WindowsProbe(LUID, integrated=False, dxgi=radeon, pdh=counters(7 * GIB, GIB, 8 * GIB)).read()
    assert (found.used_bytes, found.free_bytes, found.ceiling_bytes) == (7 * GIB, 9 * GIB, 16 * GIB)
    assert (found.own_bytes, found.others_bytes) == (2 * GIB, 5 * GIB)
    assert (found.scope, found.source) == ("device", "DXGI and PDH, discrete")


def test_a_discrete_card_leaves_no_more_than_the_budget(radeon: Dxgi) -> None:
    radeon.budget = 5 * GIB
    assert WindowsProbe(LUID, dxgi=radeon, pdh=counters(2 * GIB, 0, 2 * GIB)).read().free_bytes == 3 * GIB


def test_a_discrete_card_has_memory_of_its_own(radeon: Dxgi) -> None:
    probe = WindowsProbe(LUID, dxgi=radeon, pdh=counters(7 * GIB, 0, 7 * GIB), ram=lambda: MIB)
    assert probe.read().free_bytes == 9 * GIB


def test_an_integrated_gpu_runs_out_at_its_cap_while_ram_is_free(arc: Dxgi) -> None:
    pdh = counters(100 * MIB, 4000 * MIB, 5865 * MIB)
    found = WindowsProbe(LUID, integrated=True, dxgi=arc, pdh=pdh, ram=plenty).read()
    assert (found.used_bytes, found.free_bytes, found.ceiling_bytes) == (5865 * MIB, 100 * MIB, 5965 * MIB)
    assert found.source == "DXGI and PDH, integrated"


def test_an_integrated_gpu_leaves_no_more_than_ram(arc: Dxgi) -> None:
    pdh = counters(0, 1000 * MIB, 1000 * MIB)
    assert WindowsProbe(LUID, dxgi=arc, pdh=pdh, ram=plenty).read().free_bytes == 4400 * MIB
    assert WindowsProbe(LUID, dxgi=arc, pdh=pdh, ram=lambda: 300 * MIB).read().free_bytes == 300 * MIB


def test_an_adapter_without_far_memory_is_integrated(arc: Dxgi, radeon: Dxgi) -> None:
    found = [WindowsProbe(LUID, dxgi=card, pdh=counters(1, 1, 1)).read().source for card in (arc, radeon)]
    assert found == ["DXGI and PDH, integrated", "DXGI and PDH, discrete"]


def test_without_counters_the_reading_is_of_this_process_and_says_so(radeon: Dxgi) -> None:
    pdh = counters(1, 1, 1)
    pdh.codes["add"] = NO_OBJECT
    probe = WindowsProbe(LUID, dxgi=radeon, pdh=pdh)
    found = probe.read()
    assert (found.used_bytes, found.free_bytes, found.ceiling_bytes) == (2 * GIB, 12 * GIB, 14 * GIB)
    assert (found.scope, found.source) == ("process", "DXGI budget, discrete")
    assert "the use of other processes is unknown" in found.reason
    assert "C0000BB8" in found.reason
    assert pdh.open == 0
    probe.close()


@pytest.mark.parametrize("code", [NO_INSTANCE, NO_DATA])
def test_counters_that_fail_half_way_come_back(radeon: Dxgi, code: int) -> None:
    pdh = counters(7 * GIB, 0, 7 * GIB)
    probe = WindowsProbe(LUID, dxgi=radeon, pdh=pdh)
    before = probe.read()
    pdh.codes["collect"] = code
    assert (probe.read().scope, f"{code:08X}" in probe.read().reason) == ("process", True)
    pdh.codes.clear()
    assert probe.read() == before


def test_an_adapter_without_an_instance_is_read_without_counters(radeon: Dxgi) -> None:
    found = WindowsProbe(LUID, dxgi=radeon, pdh=Pdh({f"{OTHER}Dedicated Usage": 1})).read()
    assert (found.scope, "800007D1" in found.reason) == ("process", True)


def test_a_value_that_is_not_valid_is_none(radeon: Dxgi) -> None:
    pdh = counters(7 * GIB, 0, 7 * GIB)
    pdh.status = NO_INSTANCE
    found = WindowsProbe(LUID, dxgi=radeon, pdh=pdh).read()
    assert (found.scope, "Dedicated Usage has no value (800007D1)" in found.reason) == ("process", True)
    pdh.status = 1
    assert WindowsProbe(LUID, dxgi=radeon, pdh=pdh).read().scope == "device"


def test_an_adapter_that_is_not_there_is_unknown(radeon: Dxgi) -> None:
    probe = WindowsProbe(1, dxgi=radeon, pdh=counters(1, 1, 1))
    assert probe.read().reason == f"EnumAdapterByLuid failed with {NOT_FOUND:08X}"
    assert (probe.read().free_bytes, radeon.alive) == (None, 0)
    probe.close()


@pytest.mark.parametrize("method", ["describe", "query"])
def test_an_adapter_that_is_removed_is_unknown(radeon: Dxgi, method: str) -> None:
    probe = WindowsProbe(LUID, dxgi=radeon, pdh=counters(1, 1, 1))
    before = probe.read()
    radeon.codes[method] = REMOVED
    assert (probe.read().free_bytes, "887A0005" in probe.read().reason) == (None, True)
    radeon.codes.clear()
    assert probe.read() == before


def test_a_windows_without_this_dxgi_is_unknown(radeon: Dxgi) -> None:
    radeon.codes["create"] = 0x80004002
    found = WindowsProbe(LUID, dxgi=radeon, pdh=counters(1, 1, 1)).read()
    assert found.reason == "CreateDXGIFactory1 failed with 80004002"


def test_no_budget_and_no_size_are_unknown_not_zero(radeon: Dxgi) -> None:
    radeon.dedicated = 0
    assert WindowsProbe(LUID, dxgi=radeon, pdh=counters(1, 1, 1)).read().free_bytes is None
    radeon.budget = 0
    assert WindowsProbe(LUID, dxgi=radeon, pdh=counters(1, 1, 1)).read().reason == "DXGI gives this process no budget"


def test_closing_gives_everything_back_once(radeon: Dxgi) -> None:
    pdh = counters(1, 1, 1)
    probe = WindowsProbe(LUID, dxgi=radeon, pdh=pdh)
    probe.read()
    assert (radeon.alive, pdh.open) == (1, 1)
    probe.close()
    probe.close()
    assert (radeon.alive, pdh.open) == (0, 0)
    assert probe.read().reason == "the probe was closed"


def test_closing_does_not_wait_for_a_look_that_hangs(radeon: Dxgi) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hangs() -> int:
        inside.set()
        go_on.wait(30)
        return GIB

    probe = WindowsProbe(LUID, dxgi=radeon, pdh=counters(1, 1, 1), ram=hangs, patience_s=0.05)
    looking = threading.Thread(target=probe.read, daemon=True)
    looking.start()
    assert inside.wait(30)
    began = time.monotonic()
    probe.close()
    assert time.monotonic() - began < 5
    assert radeon.alive == 1
    go_on.set()
    looking.join(30)
    probe.close()
    assert radeon.alive == 0


@pytest.mark.parametrize("integrated", [True, False])
def test_more_used_than_there_is_leaves_nothing(integrated: bool) -> None:
    memory = AdapterMemory(dedicated_bytes=10, shared_bytes=10, budget_bytes=5, own_bytes=7, far_budget_bytes=0)
    use = AdapterUse(dedicated_bytes=20, shared_bytes=20, committed_bytes=20)
    assert headroom(memory, use, integrated=integrated, ram_bytes=100).free_bytes == 0
    assert headroom(memory, None, integrated=integrated, ram_bytes=100, reason="none").free_bytes == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has DXGI")
def test_elsewhere_than_on_windows_it_is_unknown() -> None:
    assert "dxgi.dll" in WindowsProbe(LUID).read().reason


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows has DXGI")
def test_the_real_windows_tells_its_first_adapter() -> None:
    from embedmill.engine.machine.adapters import dxgi

    adapter = dxgi.detect().adapters[0]
    assert adapter.luid is not None
    found = WindowsProbe(adapter.luid).read()
    assert found.free_bytes is not None or found.reason
