"""Memory of AMD GPUs under Linux, from the amdgpu driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from embedmill.engine.machine.adapters.sysfs import numbered_entries, read_number
from embedmill.engine.machine.memory.host import available_ram
from embedmill.engine.machine.memory.probe import MemoryReading, Probe, unknown

_SOURCE = "amdgpu"
# Documentation/gpu/amdgpu/driver-misc.rst of the kernel. They count the use of all processes.
_FILES = ("vram_total", "vram_used", "gtt_total", "gtt_used")
# format_revision of gpu_metrics, the third byte: 1 for discrete GPUs, 2 and 3 for integrated ones
# (drivers/gpu/drm/amd/include/kgd_pp_interface.h). Before Vega 12 and Renoir there is no such file.
_INTEGRATED = {1: False, 2: True, 3: True}


class AmdgpuProbe(Probe):
    """Probe of the only GPU, or one by PCI address.

    `integrated` is read from the driver where it is None. `root` holds /sys; `ram` returns available bytes of RAM.
    """

    def __init__(
        self,
        bus_id: str = "",
        *,
        integrated: bool | None = None,
        root: Path = Path("/"),
        ram: Callable[[], int] = available_ram,
    ) -> None:
        self._root, self._ram = root, ram
        self._bus_id, self._integrated = bus_id.lower(), integrated
        self._folder: Path | None = None
        self._closed = False

    def read(self) -> MemoryReading:
        """Read VRAM, and of an integrated GPU also GTT."""
        if self._closed:
            return unknown(_SOURCE, "the probe was closed")
        try:
            folder = self._folder = self._folder or self._find()
            integrated = self._kind(folder)
            sizes = {name: _size(folder, name) for name in (_FILES if integrated else _FILES[:2])}
            ram = self._ram() if integrated else 0
        except (OSError, ValueError, psutil.Error) as error:
            return unknown(_SOURCE, str(error))
        return _reading(sizes, ram, integrated)

    def close(self) -> None:
        """Mark the probe as closed."""
        self._closed = True

    def _find(self) -> Path:
        if self._bus_id:
            return self._root / "sys/bus/pci/devices" / self._bus_id
        cards = [card / "device" for card in numbered_entries(self._root / "sys/class/drm", "card")]
        found = [card for card in cards if (card / "mem_info_vram_total").exists()]
        if len(found) != 1:
            raise ValueError(f"amdgpu drives {len(found)} GPUs; only a PCI address tells them apart")
        return found[0]

    def _kind(self, folder: Path) -> bool:
        if self._integrated is None:
            try:
                with (folder / "gpu_metrics").open("rb") as file:
                    revision = file.read(4)[2]
            except (OSError, IndexError) as error:
                raise ValueError(f"amdgpu does not say whether {folder} is integrated (gpu_metrics)") from error
            if revision not in _INTEGRATED:
                raise ValueError(f"revision {revision} of gpu_metrics does not say whether {folder} is integrated")
            self._integrated = _INTEGRATED[revision]
        return self._integrated


def _size(folder: Path, name: str) -> int:
    found = read_number(folder / f"mem_info_{name}")
    if found is None or (name == "vram_total" and found <= 0):
        raise ValueError(f"{folder / f'mem_info_{name}'} has no size")
    return found


def _reading(sizes: dict[str, int], ram_bytes: int, integrated: bool) -> MemoryReading:
    free = max(0, sizes["vram_total"] - sizes["vram_used"])
    if integrated:
        # GTT is RAM: no more of it is free than of RAM.
        free += min(max(0, sizes["gtt_total"] - sizes["gtt_used"]), ram_bytes)
    return MemoryReading(
        used_bytes=sizes["vram_used"] + sizes.get("gtt_used", 0),
        free_bytes=free,
        ceiling_bytes=sizes["vram_total"] + sizes.get("gtt_total", 0),
        scope="device",
        source=f"{_SOURCE} ({'VRAM and GTT' if integrated else 'VRAM'})",
    )
