"""Memory of NVIDIA GPUs: NVML through nvidia-ml-py (extra `nvidia`).

References: NVML API, "Device Queries"; CUDA driver API, "Device Management".
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from typing import Any
from uuid import UUID

from embedmill.engine.machine.memory.probe import MemoryReading, Probe, unknown

_SOURCE = "NVML"
_MISSING = "nvidia-ml-py is not installed: python -m pip install 'embedmill[nvidia]'"


class NvmlProbe(Probe):
    """Probe of one GPU or one MIG instance.

    `device` is a UUID (`GPU-...`, `MIG-...`), a PCI address, or CUDA's device number; `cuda` is the CUDA driver's
    library, by default the system's.
    """

    def __init__(self, device: int | str, *, cuda: Any = None) -> None:
        self._device, self._cuda, self._failed = device, cuda, ""
        self._nvml: Any = None
        self._handle: Any = None
        self._errors: tuple[type[Exception], ...] = ()

    def read(self) -> MemoryReading:
        """Read the use of all processes; failed openings are final."""
        if not self._failed and self._handle is None:
            self._failed = self._open()
        if self._failed:
            return unknown(_SOURCE, self._failed)
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
        """Shut NVML down."""
        # NVML counts initialisations: other users in this process are not affected.
        self._failed = self._failed or "the probe was closed"
        if self._handle is not None:
            self._handle = None
            self._shut_down()

    def _open(self) -> str:
        """Open the device; return the reason of a failure."""
        try:
            self._nvml = importlib.import_module("pynvml")
        except ImportError:
            return _MISSING
        # Raised, and no NVMLError, where a driver older than nvidia-ml-py lacks a version of a function.
        self._errors = (self._nvml.NVMLError, self._nvml.NVMLLibraryMismatchError)
        try:
            self._nvml.nvmlInit()
        except self._errors as error:
            return str(error)
        try:
            self._handle = self._find()
        except (*self._errors, OSError) as error:
            self._shut_down()
            return f"device {self._device}: {error}"
        return ""

    def _find(self) -> Any:
        if isinstance(self._device, int):
            # NVML has numbers of its own: CUDA counts visible devices only (CUDA_VISIBLE_DEVICES), fastest first.
            uuid = cuda_uuid(self._device, self._cuda)
            try:
                return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            except self._errors:
                return self._nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        if self._device.startswith(("GPU-", "MIG-")):
            return self._nvml.nvmlDeviceGetHandleByUUID(self._device)
        return self._nvml.nvmlDeviceGetHandleByPciBusId(self._device)

    def _own(self) -> int | None:
        # None under Windows, whose driver model hides it, and in a container, where NVML has other process ids.
        try:
            running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._errors:
            return None
        found: int | None = next((one.usedGpuMemory for one in running if one.pid == os.getpid()), None)
        return found

    def _shut_down(self) -> None:
        try:
            self._nvml.nvmlShutdown()
        except self._errors:
            return


def cuda_uuid(ordinal: int, library: Any = None) -> UUID:
    """Return the UUID of a CUDA device or MIG instance.

    `library` is the CUDA driver's, by default the system's. Raises OSError without the library or the device.
    """
    library = library or ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    device, uuid = ctypes.c_int(), (ctypes.c_ubyte * 16)()
    _check("cuInit", library.cuInit(0))
    _check("cuDeviceGet", library.cuDeviceGet(ctypes.byref(device), ordinal))
    # Since CUDA 11.4; the older function returns the UUID of the whole GPU for a MIG instance.
    get_uuid = getattr(library, "cuDeviceGetUuid_v2", None) or library.cuDeviceGetUuid
    _check("cuDeviceGetUuid", get_uuid(uuid, device))
    return UUID(bytes=bytes(uuid))


def _check(function: str, code: int) -> None:
    if code:
        raise OSError(f"{function} failed with {code}")
