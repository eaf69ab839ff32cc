"""DXGI's adapters are read through vtables in memory, as COM lays them out."""

from __future__ import annotations

import ctypes
import sys
from ctypes import CFUNCTYPE, c_int32, c_int64, c_uint32, c_void_p
from typing import Any

import msgspec
import pytest

from embedmill.engine.machine.adapters import Adapter, Detection, dxgi
from embedmill.engine.machine.adapters.child import detect_in_child

NOT_FOUND, REMOVED, NO_INTERFACE = (code - (1 << 32) for code in (0x887A0002, 0x887A0005, 0x80004002))
METHODS = 14


class Gpu(msgspec.Struct, kw_only=True):
    """An adapter of the fake, with the version of its driver and the codes that its methods return."""

    name: str
    vendor: int
    device: int
    dedicated: int = 0
    shared: int = 0
    luid: tuple[int, int] = (0, 0)
    flags: int = 0
    driver: int = 0
    codes: dict[str, int] = {}


class Dxgi:
    """dxgi.dll: its objects are pointers to tables of real function pointers, and count their references."""

    def __init__(self, gpus: list[Gpu], codes: dict[str, int] | None = None) -> None:
        self.gpus, self.codes, self.kept, self.alive = gpus, codes or {}, list[Any](), 0
        self.CreateDXGIFactory1 = CFUNCTYPE(c_int32, c_void_p, c_void_p)(self.create)

    def create(self, wanted: int, factory: int) -> int:
        assert ctypes.string_at(wanted, 16).hex() == "78ae0a776ff2ba4da829253c83d1b387"
        if "create" in self.codes:
            return self.codes["create"]
        enumerate_1 = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p)(self.enumerate)
        self.put(factory, {12: enumerate_1})
        return 0

    def enumerate(self, _: int, index: int, adapter: int) -> int:
        if index == self.codes.get("fails at"):
            return REMOVED
        if index >= len(self.gpus):
            return NOT_FOUND
        gpu = self.gpus[index]
        described = CFUNCTYPE(c_int32, c_void_p, c_void_p)(lambda _, found: self.describe(gpu, found))
        checked = CFUNCTYPE(c_int32, c_void_p, c_void_p, c_void_p)(lambda _, iid, found: self.check(gpu, iid, found))
        self.put(adapter, {9: checked, 10: described})
        return 0

    def put(self, pointer: int, methods: dict[int, Any]) -> None:
        """Make an object of these methods at their places, and let `pointer` point to it."""
        methods[2] = CFUNCTYPE(c_int32, c_void_p)(self.release)
        table = (c_void_p * METHODS)(*[ctypes.cast(methods.get(place, 0), c_void_p).value for place in range(METHODS)])
        thing = c_void_p(ctypes.addressof(table))
        self.kept += [methods, table, thing]
        self.alive += 1
        c_void_p.from_address(pointer).value = ctypes.addressof(thing)

    def release(self, _: int) -> int:
        self.alive -= 1
        return 0

    def describe(self, gpu: Gpu, address: int) -> int:
        found = dxgi.AdapterDescription.from_address(address)
        text = gpu.name.encode("utf-16-le")
        ctypes.memmove(address, text, len(text))
        found.VendorId, found.DeviceId, found.Flags = gpu.vendor, gpu.device, gpu.flags
        found.DedicatedVideoMemory, found.SharedSystemMemory = gpu.dedicated, gpu.shared
        found.LuidHigh, found.LuidLow = gpu.luid
        return gpu.codes.get("describe", 0)

    def check(self, gpu: Gpu, wanted: int, address: int) -> int:
        assert ctypes.string_at(wanted, 16).hex() == "fa77ec547713e6448c3288fd5f44c84c"
        c_int64.from_address(address).value = gpu.driver
        return gpu.codes.get("check", 0)


RADEON = Gpu(
    name="AMD Radeon™ RX 7900 XTX",
    vendor=0x1002,
    device=0x744C,
    dedicated=25_700_000_000,
    shared=16_000_000_000,
    luid=(1, 0xD2C4),
    driver=31 << 48 | 24027 << 16 | 1012,
)
WARP = Gpu(name="Microsoft Basic Render Driver", vendor=0x1414, device=0x8C, flags=2, codes={"check": NO_INTERFACE})


def test_the_layout_is_that_of_64_bit_windows() -> None:
    assert ctypes.sizeof(dxgi.AdapterDescription) == 312
    assert dxgi.AdapterDescription.LuidLow.offset == 296


def test_adapters_are_told_in_their_order_and_released() -> None:
    library = Dxgi([RADEON, WARP])
    radeon, warp = dxgi.detect(library).adapters
    assert radeon == Adapter(
        seen_by="dxgi",
        name="AMD Radeon™ RX 7900 XTX",
        kind="gpu",
        vendor_id=0x1002,
        device_id=0x744C,
        luid=0x1_0000_D2C4,
        memory_bytes=25_700_000_000,
        shared_memory_bytes=16_000_000_000,
        driver="31.0.24027.1012",
        note="adapter 0",
    )
    assert (warp.name, warp.kind, warp.driver) == ("Microsoft Basic Render Driver", "cpu", "")
    assert warp.note == "adapter 1; software: it runs on the processor"
    assert library.alive == 0


def test_an_adapter_of_a_remote_session_is_unknown() -> None:
    (found,) = dxgi.detect(Dxgi([Gpu(name="remote", vendor=0x1414, device=1, flags=1)])).adapters
    assert found.kind == "unknown"


def test_a_name_may_fill_its_field_and_a_luid_may_be_high() -> None:
    (found,) = dxgi.detect(Dxgi([Gpu(name="x" * 128, vendor=1, device=2, luid=(-1, 0xFFFFFFFF))])).adapters
    assert (found.name, found.luid) == ("x" * 128, 0xFFFF_FFFF_FFFF_FFFF)


def test_a_machine_without_adapters_shows_none() -> None:
    assert dxgi.detect(Dxgi([])) == Detection()


def test_a_factory_that_fails_is_a_reason() -> None:
    found = dxgi.detect(Dxgi([RADEON], {"create": NO_INTERFACE}))
    assert found == Detection(reason="CreateDXGIFactory1 failed with 80004002")


def test_what_was_seen_before_a_failure_is_kept() -> None:
    library = Dxgi([RADEON, WARP], {"fails at": 1})
    found = dxgi.detect(library)
    assert ([one.name for one in found.adapters], found.reason) == ([RADEON.name], "EnumAdapters1 failed with 887A0005")
    assert library.alive == 0


def test_an_adapter_that_does_not_describe_itself_is_a_reason() -> None:
    library = Dxgi([msgspec.structs.replace(RADEON, codes={"describe": REMOVED})])
    assert dxgi.detect(library) == Detection(reason="GetDesc1 failed with 887A0005")
    assert library.alive == 0


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has DXGI")
def test_elsewhere_than_on_windows_there_is_no_dxgi() -> None:
    assert "dxgi.dll" in detect_in_child(dxgi.__name__, 60).reason


@pytest.mark.skipif(sys.platform != "win32", reason="only Windows has DXGI")
def test_the_real_dxgi_of_this_machine_answers_in_a_child() -> None:
    found = detect_in_child(dxgi.__name__, 60)
    assert found.reason == ""
    assert "" not in {one.name for one in found.adapters}
