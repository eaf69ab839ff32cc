"""Fakes of dxgi.dll and pdh.dll: real function pointers over a fake adapter."""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, c_int32, c_size_t, c_uint32, c_uint64, c_void_p, c_wchar_p
from typing import Any

from embedmill.engine.machine.adapters.dxgi import AdapterDescription
from embedmill.engine.machine.memory.dxgi_budget import VideoMemoryInfo
from embedmill.engine.machine.memory.pdh import CounterValue

NOT_FOUND, REMOVED = 0x887A0002, 0x887A0005
NO_OBJECT, NO_INSTANCE, NO_DATA = 0xC0000BB8, 0x800007D1, 0x800007D5
FACTORY4, ADAPTER3 = "02eac61b36ef4f46bf0c21ca39e5168a", "a467596492131043a7988053ce3e93fd"


def signed(code: int) -> int:
    return code - (1 << 32) if code >> 31 else code


class Dxgi:
    """One adapter, which changes as its fields are set; `codes` is what a method fails with."""

    def __init__(self, luid: int, *, dedicated: int, shared: int) -> None:
        self.luid, self.dedicated, self.shared = luid, dedicated, shared
        self.budget, self.used, self.far = 0, 0, 0
        self.codes: dict[str, int] = {}
        self.alive, self.kept = 0, list[Any]()
        self.CreateDXGIFactory1 = CFUNCTYPE(c_int32, c_void_p, c_void_p)(self.create)

    def create(self, wanted: int, factory: int) -> int:
        assert ctypes.string_at(wanted, 16).hex() == FACTORY4
        by_luid = CFUNCTYPE(c_int32, c_void_p, c_uint64, c_void_p, c_void_p)(self.find)
        return self.put(factory, {26: by_luid}, "create")

    def find(self, _: int, luid: int, wanted: int, adapter: int) -> int:
        assert ctypes.string_at(wanted, 16).hex() == ADAPTER3
        if luid != self.luid:
            return signed(NOT_FOUND)
        describe = CFUNCTYPE(c_int32, c_void_p, c_void_p)(self.describe)
        query = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_uint32, c_void_p)(self.query)
        return self.put(adapter, {10: describe, 14: query}, "find")

    def put(self, pointer: int, methods: dict[int, Any], name: str) -> int:
        """Let `pointer` point to an object with these methods at their places."""
        if name in self.codes:
            return signed(self.codes[name])
        methods[2] = CFUNCTYPE(c_int32, c_void_p)(self.release)
        table = (c_void_p * 28)(*[ctypes.cast(methods.get(place, 0), c_void_p).value for place in range(28)])
        thing = c_void_p(ctypes.addressof(table))
        self.kept += [methods, table, thing]
        self.alive += 1
        c_void_p.from_address(pointer).value = ctypes.addressof(thing)
        return 0

    def release(self, _: int) -> int:
        self.alive -= 1
        return 0

    def describe(self, _: int, address: int) -> int:
        found = AdapterDescription.from_address(address)
        found.DedicatedVideoMemory, found.SharedSystemMemory = self.dedicated, self.shared
        return signed(self.codes.get("describe", 0))

    def query(self, _: int, node: int, group: int, address: int) -> int:
        assert node == 0
        found = VideoMemoryInfo.from_address(address)
        found.Budget, found.CurrentUsage = (self.budget, self.used) if group == 0 else (self.far, 0)
        return signed(self.codes.get("query", 0))


class Pdh:
    """The counters of all adapters, by their paths; `codes` is what a function fails with."""

    def __init__(self, values: dict[str, int]) -> None:
        self.values, self.codes = values, dict[str, int]()
        self.paths: list[str] = []
        self.open, self.collected, self.status = 0, 0, 0
        self.PdhOpenQueryW = CFUNCTYPE(c_int32, c_wchar_p, c_size_t, c_void_p)(self.start)
        self.PdhAddEnglishCounterW = CFUNCTYPE(c_int32, c_void_p, c_wchar_p, c_size_t, c_void_p)(self.add)
        self.PdhCollectQueryData = CFUNCTYPE(c_int32, c_void_p)(self.collect)
        self.PdhGetFormattedCounterValue = CFUNCTYPE(c_int32, c_void_p, c_uint32, c_void_p, c_void_p)(self.value)
        self.PdhCloseQuery = CFUNCTYPE(c_int32, c_void_p)(self.end)

    def start(self, source: str | None, user: int, query: int) -> int:
        assert source is None
        self.open += 1
        c_void_p.from_address(query).value = 0xFFFF_0000_1234
        return 0

    def add(self, query: int, path: str, user: int, counter: int) -> int:
        assert query == 0xFFFF_0000_1234
        self.paths.append(path)
        c_void_p.from_address(counter).value = 0xFFFF_0000_0000 + len(self.paths)
        return signed(self.codes.get("add", 0))

    def collect(self, query: int) -> int:
        assert query == 0xFFFF_0000_1234
        self.collected += 1
        return signed(self.codes.get("collect", 0))

    def value(self, counter: int, form: int, kind: int | None, address: int) -> int:
        assert (form, kind) == (0x400, None)
        assert self.collected
        found = CounterValue.from_address(address)
        path = self.paths[counter - 0xFFFF_0000_0001]
        if path not in self.values:
            return signed(NO_INSTANCE)
        found.Status, found.Value = self.status, self.values[path]
        return 0

    def end(self, query: int) -> int:
        assert query == 0xFFFF_0000_1234
        self.open -= 1
        return 0
