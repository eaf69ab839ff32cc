"""Memory of NVIDIA's GPUs: NVML, through nvidia-ml-py (the extra `nvidia`).

Functions: NVML API reference, "Device Queries"; the CUDA driver API, "Device Management".
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from typing import Any
from uuid import UUID

from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown

_SOURCE = "NVML"
_MISSING = "nvidia-ml-py is not installed: python -m pip install 'embedmill[nvidia]'"


class NvmlProbe(Probe):
    """One GPU, or one instance of a divided one (MIG).

    `device` is a UUID (`GPU-...`, `MIG-...`), a PCI address, or CUDA's number of the device. `cuda` is the CUDA
    driver's library, by default the system's: NVML knows neither CUDA_VISIBLE_DEVICES nor CUDA's order, fastest
    first, so that CUDA's number of a device is not NVML's.
    """

    def __init__(self, device: int | str, *, cuda: Any = None) -> None:
        self._device = device
        self._cuda = cuda
        self._nvml: Any = None
        self._errors: tuple[type[Exception], ...] = ()
        self._handle: Any = None
        self._failed = ""

    def read(self) -> MemoryReading:
        """What all processes use of the device. A probe that could not be opened is not opened again."""
        if not self._failed and self._handle is None:
            self._failed = self._open()
        if self._failed:
            return unknown(_SOURCE, self._failed)
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._errors as error:
            return unknown(_SOURCE, str(error))
        if memory.total <= 0:
            return unknown(_SOURCE, "it tells a device of 0 bytes")
        return MemoryReading(
            used_bytes=memory.used,
            free_bytes=memory.free,
            ceiling_bytes=memory.total,
            scope="device",
            source=_SOURCE,
            own_bytes=self._own(),
        )

    def close(self) -> None:
        """Leave NVML; it counts who entered it, so that others in this process are not disturbed."""
        self._failed = self._failed or "the probe was closed"
        if self._handle is not None:
            self._handle = None
            self._leave()

    def _open(self) -> str:
        """Find the device; what hindered it, or nothing."""
        try:
            self._nvml = importlib.import_module("pynvml")
        except ImportError:
            return _MISSING
        # The second is no NVMLError: a driver that is older than nvidia-ml-py lacks a version of a function.
        self._errors = (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError)
        try:
            self._nvml.nvmlInit()
        except self._errors as error:
            return str(error)
        try:
            self._handle = self._find()
        except (*self._errors, OSError) as error:
            self._leave()
            return f"device {self._device}: {error}"
        return ""

    def _find(self) -> Any:
        if isinstance(self._device, int):
            uuid = cuda_uuid(self._device, self._cuda)
            try:
                return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            except self._errors:
                return self._nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        if self._device.startswith(("GPU-", "MIG-")):
            return self._nvml.nvmlDeviceGetHandleByUUID(self._device)
        return self._nvml.nvmlDeviceGetHandleByPciBusId(self._device)

    def _own(self) -> int | None:
        """What this process uses. Windows' driver model keeps it from NVML, and in a container NVML counts processes
        by other numbers: None there."""
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._errors:
            return None
        found: int | None = next((one.usedGpuMemory for one in running if one.pid == os.getpid()), None)
        return found

    def _leave(self) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._errors:
            return


def cuda_uuid(ordinal: int, library: Any = None) -> UUID:
    """The UUID of a device as CUDA numbers those that this process may see; of a MIG instance its own (CUDA 11.4).

    `library` is the CUDA driver's, by default the system's. Raises OSError where it is missing or knows no such device.
    """
    library = library or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    device, uuid = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    _check("cuInit", library.cuInit(0))
    _check("cuDeviceGet", library.cuDeviceGet(ctypes.byref(device), ordinal))
    ask = getattr(library, "cuDeviceGetUuid_v2", None) or library.cuDeviceGetUuid
    _check("cuDeviceGetUuid", ask(uuid, device))
    return UUID(bytes=bytes(uuid))


def _check(what: str, code: int) -> None:
    if code:
        raise OSError(f"{what} failed with {code}")
