"""Read NPUs from Linux: /sys/class/accel and Qualcomm's FastRPC nodes.

The accel subsystem: Documentation/accel/introduction.rst of the kernel.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from embedmill.engine.machine.adapters.adapter import Adapter, Kind, Scan
from embedmill.engine.machine.adapters.sysfs import access_problem, device_at, numbered

# Drivers of NPUs; the class lists other accelerators too.
_NPU_DRIVERS = {"intel_vpu", "amdxdna", "qaic", "rocket", "ethosu"}
_QUALCOMM = 0x5143


def scan(root: Path = Path("/")) -> Scan:
    """Return the devices of /sys/class/accel and a Snapdragon's compute DSP."""
    accels = (_adapter(accel, root) for accel in numbered(root / "sys/class/accel", "accel"))
    return Scan(adapters=(*accels, *_hexagon(root)))


def _adapter(accel: Path, root: Path) -> Adapter:
    device = device_at(accel / "device", root, accel, seen_by="accel")
    kind: Kind = "npu" if device.driver.partition(" ")[0] in _NPU_DRIVERS else "unknown"
    return structs.replace(device, kind=kind, note=access_problem(root / "dev/accel" / accel.name))


def _hexagon(root: Path) -> tuple[Adapter, ...]:
    # The nodes that onnxruntime-qnn looks for (onnxruntime-qnn pull request 557).
    nodes = [node for name in ("fastrpc-cdsp", "fastrpc-cdsp-secure") if (node := root / "dev" / name).exists()]
    if not nodes:
        return ()
    adapter = Adapter(
        seen_by="fastrpc",
        name="Qualcomm Hexagon",
        kind="npu",
        vendor_id=_QUALCOMM,
        driver="fastrpc",
        note=access_problem(nodes[0]),
    )
    return (adapter,)
