"""Vulkan's structures are read from memory as drivers fill them."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Callable
from ctypes import CFUNCTYPE, c_int32, c_uint32, c_void_p

import msgspec
import pytest

from embedmill.engine.machine.adapters import Adapter, Detection, vulkan
from embedmill.engine.machine.adapters.child import detect_in_child

TYPES = {"other": 0, "integrated": 1, "discrete": 2, "virtual": 3, "cpu": 4}


class Device(msgspec.Struct, kw_only=True):
    """A physical device of the fake: `words` is None for a driver of Vulkan 1.0."""

    name: bytes
    type: str = "discrete"
    vendor: int = 0x10DE
    device: int = 0x2684
    api: tuple[int, int, int] = (1, 3, 277)
    words: tuple[bytes, bytes] | None = (b"NVIDIA", b"550.120")
    luid: int | None = None


class Loader:
    """A Vulkan loader behind real function pointers: what is read and written goes through memory, as with the real."""

    def __init__(self, devices: list[Device], codes: dict[str, int] | None = None, version: str = "1.3") -> None:
        self.devices, self.codes, self.asked_for, self.open = devices, codes or {}, 0, 0
        functions: dict[str, tuple[Callable[..., int], int]] = {
            "vkCreateInstance": (self.create, 3),
            "vkDestroyInstance": (self.destroy, 2),
            "vkEnumeratePhysicalDevices": (self.enumerate, 3),
            "vkGetPhysicalDeviceProperties": (self.properties, 2),
        }
        if version != "1.0":
            functions |= {
                "vkEnumerateInstanceVersion": (lambda _: 0, 1),
                "vkGetPhysicalDeviceProperties2": (self.properties_2, 2),
            }
        for name, (function, arguments) in functions.items():
            setattr(self, name, CFUNCTYPE(c_int32, *[c_void_p] * arguments)(self.coded(name, function)))

    def coded(self, name: str, function: Callable[..., int]) -> Callable[..., int]:
        return (lambda *_: self.codes[name]) if name in self.codes else function

    def create(self, wanted: int, _: None, instance: int) -> int:
        info = vulkan._InstanceCreateInfo.from_address(wanted)
        self.asked_for, self.open = info.pApplicationInfo[0].apiVersion, self.open + 1
        c_void_p.from_address(instance).value = 0x7F00_0000_1000
        return 0

    def destroy(self, instance: int, _: None) -> int:
        assert instance == 0x7F00_0000_1000
        self.open -= 1
        return 0

    def enumerate(self, _: int, count: int, devices: int | None) -> int:
        if devices:
            handles = (c_void_p * len(self.devices)).from_address(devices)
            handles[:] = [0x7F00_0000_2000 + index for index in range(len(self.devices))]
        c_uint32.from_address(count).value = len(self.devices)
        return 0

    def properties(self, handle: int, address: int) -> int:
        device, found = self.devices[handle - 0x7F00_0000_2000], vulkan._Properties.from_address(address)
        found.apiVersion = device.api[0] << 22 | device.api[1] << 12 | device.api[2]
        found.driverVersion, found.vendorID, found.deviceID = 0x8000, device.vendor, device.device
        found.deviceType, found.deviceName = TYPES[device.type], device.name
        return 0

    def properties_2(self, handle: int, address: int) -> int:
        device, both = self.devices[handle - 0x7F00_0000_2000], vulkan._Properties2.from_address(address)
        self.properties(handle, address + vulkan._Properties2.properties.offset)
        following = both.pNext
        while following:
            head = vulkan._IdProperties.from_address(following)
            if head.sType == 1000071004 and device.luid is not None:
                head.deviceLUID[:], head.deviceLUIDValid = device.luid.to_bytes(8, "little"), 1
            if head.sType == 1000196000 and device.words:
                named = vulkan._DriverProperties.from_address(following)
                named.driverName, named.driverInfo = device.words
            following = head.pNext
        return 0


GEFORCE = Device(name=b"NVIDIA GeForce RTX 4090", luid=0x1_0000_D2C4)
ADRENO = Device(name=b"Adreno X1-85", type="integrated", vendor=0x4D4F4351, device=0x41333430)


def test_the_layout_is_that_of_the_header() -> None:
    sizes = [vulkan._ApplicationInfo, vulkan._InstanceCreateInfo, vulkan._Properties, vulkan._Properties2]
    assert [ctypes.sizeof(one) for one in sizes] == [48, 64, 824, 840]
    assert [ctypes.sizeof(one) for one in (vulkan._DriverProperties, vulkan._IdProperties)] == [536, 64]
    assert vulkan._Properties.deviceName.offset == 20


def test_a_discrete_gpu_is_told_with_its_driver_and_luid() -> None:
    loader = Loader([GEFORCE])
    assert vulkan.detect(loader) == Detection(
        adapters=(
            Adapter(
                seen_by="vulkan",
                name="NVIDIA GeForce RTX 4090",
                kind="gpu",
                integrated=False,
                vendor_id=0x10DE,
                device_id=0x2684,
                luid=0x1_0000_D2C4,
                driver="NVIDIA 550.120",
                note="Vulkan 1.3.277",
            ),
        )
    )
    assert (loader.asked_for, loader.open) == (1 << 22 | 1 << 12, 0)


@pytest.mark.parametrize(
    ("type", "kind", "integrated"),
    [
        ("integrated", "gpu", True),
        ("discrete", "gpu", False),
        ("virtual", "gpu", None),
        ("cpu", "cpu", None),
        ("other", "unknown", None),
    ],
)
def test_a_device_is_what_its_driver_calls_it(type: str, kind: str, integrated: bool | None) -> None:
    (found,) = vulkan.detect(Loader([Device(name=b"a device", type=type)])).adapters
    assert (found.kind, found.integrated) == (kind, integrated)


def test_every_device_is_listed_in_the_order_of_the_loader() -> None:
    assert [one.name for one in vulkan.detect(Loader([ADRENO, GEFORCE])).adapters] == [
        "Adreno X1-85",
        "NVIDIA GeForce RTX 4090",
    ]


def test_a_device_without_a_name_is_called_by_its_numbers() -> None:
    (found,) = vulkan.detect(Loader([Device(name=b"", vendor=0x1002, device=0x1900)])).adapters
    assert found.name == "AMD 0x1900"


def test_a_driver_without_words_is_told_by_its_number() -> None:
    (found,) = vulkan.detect(Loader([Device(name=b"old", words=None)])).adapters
    assert (found.driver, found.luid) == ("0x8000", None)


@pytest.mark.parametrize("version", ["1.0", "1.3"])
def test_vulkan_1_0_is_not_asked_for_more(version: str) -> None:
    loader = Loader([Device(name=b"old", api=(1, 0, 61))], version=version)
    (found,) = vulkan.detect(loader).adapters
    assert (found.driver, found.note) == ("0x8000", "Vulkan 1.0.61")
    assert loader.asked_for == (1 << 22 if version == "1.0" else 1 << 22 | 1 << 12)


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ({"vkCreateInstance": -9}, "no Vulkan driver is installed"),
        ({"vkCreateInstance": -1}, "vkCreateInstance failed with -1"),
        ({"vkEnumeratePhysicalDevices": -3}, "no installed Vulkan driver finds a device"),
        ({"vkEnumeratePhysicalDevices": -2}, "vkEnumeratePhysicalDevices failed with -2"),
    ],
)
def test_a_failure_is_a_reason(codes: dict[str, int], reason: str) -> None:
    loader = Loader([GEFORCE], codes)
    assert vulkan.detect(loader) == Detection(reason=reason)
    assert loader.open == 0


def test_a_driver_without_devices_shows_none() -> None:
    assert vulkan.detect(Loader([])) == Detection()


def test_a_machine_without_vulkan_says_so() -> None:
    found = vulkan.detect("libembedmill-no-vulkan.so")
    assert found == Detection(reason="the Vulkan loader (libembedmill-no-vulkan.so) is not installed")


def test_the_real_vulkan_of_this_machine_answers_in_a_child() -> None:
    """Whatever is installed here: devices, or the reason why there is none."""
    found = detect_in_child(vulkan.__name__, 60)
    assert found.adapters or " installed" in found.reason
    for adapter in found.adapters:
        assert "" not in {adapter.name, adapter.driver}


def test_as_a_program_it_prints_json() -> None:
    command = [sys.executable, "-W", "error", "-m", "embedmill.engine.machine.adapters.vulkan"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    msgspec.json.decode(done.stdout, type=Detection)
