"""Read memory of NVIDIA GPUs: NVML, through nvidia-ml-py.

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
    """Probe of one GPU or MIG instance.

    `device` is a UUID (`GPU-...`, `MIG-...`), a PCI address, or CUDA's ordinal. `cuda` defaults to the system's CUDA
    driver library.
    """

    def __init__(self, device: int | str, *, cuda: Any = None) -> None:
        self._device = device
        self._cuda = cuda
        self._nvml: Any = None
        self._errors: tuple[type[Exception], ...] = ()
        self._handle: Any = None
        self._error = ""

    def read(self) -> MemoryReading:
        """Read all processes' use; a failed open is final."""
        if not self._error and self._handle is None:
            self._error = self._open()
        if self._error:
            return unknown(_SOURCE, self._error)
        try:
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle)
        except self._errors as error:
            return unknown(_SOURCE, str(error))
        if memory.total <= 0:
            return unknown(_SOURCE, "the driver reports a device of 0 bytes")
        return MemoryReading(
            used_bytes=memory.used,
            free_bytes=memory.free,
            ceiling_bytes=memory.total,
            scope="device",
            source=_SOURCE,
            own_bytes=self._own(),
        )

    def close(self) -> None:
        """Shut NVML down for this probe."""
        self._error = self._error or "the probe was closed"
        if self._handle is not None:
            self._handle = None
            self._shutdown()

    def _open(self) -> str:
        """Open the device; return the error, empty on success."""
        try:
            self._nvml = importlib.import_module("pynvml")
        except ImportError:
            return _MISSING
        # The second, no NVMLError, means that the driver is older than nvidia-ml-py and lacks a function's version.
        self._errors = (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError)
        try:
            self._nvml.nvmlInit()
        except self._errors as error:
            return str(error)
        try:
            self._handle = self._find()
        except (*self._errors, OSError) as error:
            self._shutdown()
            return f"device {self._device}: {error}"
        return ""

    def _find(self) -> Any:
        if isinstance(self._device, int):
            # CUDA's ordinal is not NVML's, which ignores CUDA_VISIBLE_DEVICES and CUDA's order (fastest first).
            uuid = cuda_uuid(self._device, self._cuda)
            try:
                return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            except self._errors:
                return self._nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        if self._device.startswith(("GPU-", "MIG-")):
            return self._nvml.nvmlDeviceGetHandleByUUID(self._device)
        return self._nvml.nvmlDeviceGetHandleByPciBusId(self._device)

    def _own(self) -> int | None:
        """Return this process's use; None where unknown."""
        # Under Windows the driver model hides the use from NVML; in a container NVML sees other process ids.
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._errors:
            return None
        own: int | None = next((process.usedGpuMemory for process in running if process.pid == os.getpid()), None)
        return own

    def _shutdown(self) -> None:
        # NVML counts its users: other users in this process keep working.
        try:
            self._nvml.nvmlShutdown()
        except self._errors:
            return


def cuda_uuid(ordinal: int, library: Any = None) -> UUID:
    """Return the UUID of CUDA's visible device `ordinal`.

    `library` defaults to the system's CUDA driver. Raises OSError where the library or the device is missing.
    """
    library = library or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    device, uuid = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    _check("cuInit", library.cuInit(0))
    _check("cuDeviceGet", library.cuDeviceGet(ctypes.byref(device), ordinal))
    # Since CUDA 11.4 version 2 returns the UUID of a MIG instance, not of the whole GPU.
    get_uuid = getattr(library, "cuDeviceGetUuid_v2", None) or library.cuDeviceGetUuid
    _check("cuDeviceGetUuid", get_uuid(uuid, device))
    return UUID(bytes=bytes(uuid))


def _check(function: str, code: int) -> None:
    if code:
        raise OSError(f"{function} failed with {code}")
