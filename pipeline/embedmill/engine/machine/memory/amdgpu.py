"""Read memory of AMD GPUs from Linux's amdgpu driver.

Files, which count all processes: Documentation/gpu/amdgpu/driver-misc.rst of the kernel.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from embedmill.engine.machine.adapters.sysfs import number, numbered
from embedmill.engine.machine.memory.host import available_ram
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown

_SOURCE = "amdgpu"
_FILES = ("vram_total", "vram_used", "gtt_total", "gtt_used")
# format_revision of gpu_metrics, the third byte: 1 means a discrete GPU, 2 and 3 one in a processor
# (drivers/gpu/drm/amd/include/kgd_pp_interface.h). Before Vega 12 and Renoir there is no such file.
_INTEGRATED = {1: False, 2: True, 3: True}


class AmdgpuProbe(Probe):
    """Probe of one amdgpu device.

    `bus_id` is the PCI address (`0000:03:00.0`); empty: the driver's only GPU. `integrated` None: the driver is asked.
    `root` holds /sys.
    """

    def __init__(self, bus_id: str = "", *, integrated: bool | None = None, root: Path = Path("/")) -> None:
        self._root = root
        self._bus_id = bus_id.lower()
        self._integrated = integrated
        self._folder: Path | None = None
        self._closed = False

    def read(self) -> MemoryReading:
        """Read VRAM, of an integrated GPU also GTT (mappable RAM)."""
        if self._closed:
            return unknown(_SOURCE, "the probe was closed")
        try:
            folder = self._folder or self._find()
            integrated = self._is_integrated(folder)
            sizes = {name: _size(folder, name) for name in (_FILES if integrated else _FILES[:2])}
            ram = available_ram() if integrated else 0
        except (OSError, ValueError, psutil.Error) as error:
            return unknown(_SOURCE, str(error))
        return _reading(sizes, ram, integrated)

    def close(self) -> None:
        """Make later readings unknown; no resource is held."""
        self._closed = True

    def _find(self) -> Path:
        if self._bus_id:
            self._folder = self._root / "sys/bus/pci/devices" / self._bus_id
            return self._folder
        cards = [card / "device" for card in numbered(self._root / "sys/class/drm", "card")]
        found = [card for card in cards if (card / "mem_info_vram_total").exists()]
        if len(found) != 1:
            raise ValueError(f"amdgpu drives {len(found)} GPUs; only a PCI address tells them apart")
        self._folder = found[0]
        return self._folder

    def _is_integrated(self, folder: Path) -> bool:
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
    file = folder / f"mem_info_{name}"
    size = number(file)
    if size is None or (name == "vram_total" and size <= 0):
        raise ValueError(f"{file} holds no size")
    return size


def _reading(sizes: dict[str, int], ram_bytes: int, integrated: bool) -> MemoryReading:
    free = max(0, sizes["vram_total"] - sizes["vram_used"])
    if integrated:
        # GTT maps RAM: no more of GTT is free than of RAM.
        free += min(max(0, sizes["gtt_total"] - sizes["gtt_used"]), ram_bytes)
    return MemoryReading(
        used_bytes=sizes["vram_used"] + sizes.get("gtt_used", 0),
        free_bytes=free,
        ceiling_bytes=sizes["vram_total"] + sizes.get("gtt_total", 0),
        scope="device",
        source=f"{_SOURCE} ({'VRAM and GTT' if integrated else 'VRAM'})",
    )
