"""NVML readings; a lost or absent device is unknown."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from embedmill.engine.machine.memory.nvml import NvmlProbe, cuda_uuid
from tests.support.readings import GIB, MIB

RTX_4090 = "GPU-2dee1e25-b3b5-007e-2b55-79f2d0f2ebe5"
MIG = "MIG-94c6a8ee-9c38-5f3c-9a3a-d9e3f1a3ee9b"
BUS = "00000000:01:00.0"


class NVMLError(Exception):
    """pynvml's error, with a message."""


class NVMLLibraryMismatchError(Exception):
    """pynvml's; it is no NVMLError."""


class Pynvml:
    """The functions of pynvml, over devices by name; `fails` maps a function to what it raises."""

    NVMLError = NVMLError
    NVMLLibraryMismatchError = NVMLLibraryMismatchError

    def __init__(self) -> None:
        self.entered, self.asked = 0, list[str]()
        self.fails: dict[str, Exception] = {}
        self.used = 3 * GIB
        self.names = {RTX_4090, BUS}
        self.running: list[tuple[int, int | None]] = [(1, 2 * GIB)]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] = object.__getattribute__(self, name.removeprefix("nvml"))

        def call(*arguments: Any) -> Any:
            if name in self.fails:
                raise self.fails[name]
            return function(*arguments)

        return call

    def Init(self) -> None:  # noqa: N802
        self.entered += 1

    def Shutdown(self) -> None:  # noqa: N802
        self.entered -= 1

    def DeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802
        self.asked.append(name)
        if name not in self.names:
            raise NVMLError("Not Found")
        return name

    DeviceGetHandleByPciBusId = DeviceGetHandleByUUID

    def DeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        assert self.entered == 1
        assert handle in self.names
        return SimpleNamespace(total=24 * GIB, used=self.used, free=24 * GIB - self.used)

    def DeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.running]


class Cuda:
    """libcuda.so.1, whose devices have these UUIDs in CUDA's order."""

    def __init__(self, *uuids: str, code: int = 0) -> None:
        self.uuids, self.code = uuids, code

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.code

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = ordinal
        return 0 if ordinal < len(self.uuids) else 101

    def cuDeviceGetUuid_v2(self, uuid: Any, device: ctypes.c_int) -> int:  # noqa: N802
        uuid[:] = UUID(self.uuids[device.value].partition("-")[2]).bytes
        return 0


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Pynvml:
    fake = Pynvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.mark.parametrize("name", [RTX_4090, BUS])
def test_a_device_is_known_by_its_uuid_or_its_pci_address(nvml: Pynvml, name: str) -> None:
    found = NvmlProbe(name).read()
    assert (found.used_bytes, found.free_bytes, found.ceiling_bytes) == (3 * GIB, 21 * GIB, 24 * GIB)
    assert (found.scope, found.source, found.reason) == ("device", "NVML", "")


def test_cudas_number_is_translated_by_cuda(nvml: Pynvml) -> None:
    """NVML's own device 1 may be another one: CUDA counts the fastest first, and only those that are visible."""
    nvml.names |= {"GPU-11111111-1111-1111-1111-111111111111"}
    cuda = Cuda("GPU-11111111-1111-1111-1111-111111111111", RTX_4090)
    assert NvmlProbe(1, cuda=cuda).read().free_bytes == 21 * GIB
    assert nvml.asked == [RTX_4090]


def test_an_instance_of_a_divided_gpu_is_found_by_its_own_uuid(nvml: Pynvml) -> None:
    nvml.names = {MIG}
    assert NvmlProbe(0, cuda=Cuda(MIG)).read().free_bytes is not None
    assert nvml.asked[-1] == MIG


def test_what_this_process_uses_is_told_where_the_driver_tells_it(nvml: Pynvml) -> None:
    probe = NvmlProbe(RTX_4090)
    assert probe.read().own_bytes is None
    nvml.running.append((os.getpid(), 700 * MIB))
    assert probe.read().own_bytes == 700 * MIB
    assert probe.read().others_bytes == 3 * GIB - 700 * MIB
    nvml.running[-1] = (os.getpid(), None)
    assert probe.read().own_bytes is None


@pytest.mark.parametrize("error", [NVMLError("Not Supported"), NVMLLibraryMismatchError("older driver")])
def test_a_driver_without_processes_still_tells_what_is_free(nvml: Pynvml, error: Exception) -> None:
    nvml.fails["nvmlDeviceGetComputeRunningProcesses"] = error
    found = NvmlProbe(RTX_4090).read()
    assert (found.free_bytes, found.own_bytes) == (21 * GIB, None)


def test_a_device_that_is_lost_is_unknown_and_known_again_when_it_is_back(nvml: Pynvml) -> None:
    probe = NvmlProbe(RTX_4090)
    before = probe.read()
    nvml.fails["nvmlDeviceGetMemoryInfo"] = NVMLError("GPU is lost")
    lost = probe.read()
    assert (lost.free_bytes, lost.scope, lost.reason) == (None, "unknown", "GPU is lost")
    nvml.fails.clear()
    assert probe.read() == before


def test_without_a_driver_the_reason_is_nvmls(nvml: Pynvml) -> None:
    nvml.fails["nvmlInit"] = NVMLError("NVML Shared Library Not Found")
    probe = NvmlProbe(RTX_4090)
    assert probe.read().reason == "NVML Shared Library Not Found"
    probe.close()
    assert nvml.entered == 0


def test_an_unknown_device_is_told_and_nvml_is_left(nvml: Pynvml) -> None:
    probe = NvmlProbe("GPU-0")
    assert probe.read().reason == "device GPU-0: Not Found"
    assert probe.read().free_bytes is None
    assert (nvml.asked, nvml.entered) == (["GPU-0"], 0)


def test_a_number_that_cuda_does_not_know_is_told(nvml: Pynvml) -> None:
    assert NvmlProbe(3, cuda=Cuda(RTX_4090)).read().reason == "device 3: cuDeviceGet failed with 101"
    assert NvmlProbe(0, cuda=Cuda(RTX_4090, code=100)).read().reason == "device 0: cuInit failed with 100"


def test_a_unified_memory_of_no_size_is_unknown(nvml: Pynvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some drivers of GB10 (lablup/all-smi issue 80)."""
    monkeypatch.setattr(nvml, "DeviceGetMemoryInfo", lambda _: SimpleNamespace(total=0, used=0, free=0), raising=False)
    assert NvmlProbe(RTX_4090).read().free_bytes is None


def test_without_nvidia_ml_py_the_reason_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = NvmlProbe(RTX_4090).read()
    assert found.reason == "nvidia-ml-py is not installed: python -m pip install 'embedmill[nvidia]'"
    assert found.free_bytes is None


def test_closing_leaves_nvml_once(nvml: Pynvml) -> None:
    probe = NvmlProbe(RTX_4090)
    probe.read()
    assert nvml.entered == 1
    probe.close()
    probe.close()
    assert nvml.entered == 0
    assert probe.read().reason == "the probe was closed"


def test_a_failure_at_leaving_is_no_failure_of_the_run(nvml: Pynvml) -> None:
    probe = NvmlProbe(RTX_4090)
    probe.read()
    nvml.fails["nvmlShutdown"] = NVMLError("Uninitialized")
    probe.close()


def test_an_older_cuda_driver_tells_the_uuid_by_its_older_function() -> None:
    class Older(Cuda):
        cuDeviceGetUuid = Cuda.cuDeviceGetUuid_v2  # noqa: N815
        cuDeviceGetUuid_v2 = None  # type: ignore[assignment]  # noqa: N815

    assert str(cuda_uuid(0, Older(RTX_4090))) == RTX_4090.removeprefix("GPU-")


@pytest.mark.skipif(sys.platform != "linux", reason="the library's name under Linux")
def test_without_cuda_its_number_is_no_device(nvml: Pynvml) -> None:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        assert "libcuda.so.1" in NvmlProbe(0).read().reason
    else:
        pytest.skip("this machine has CUDA")
