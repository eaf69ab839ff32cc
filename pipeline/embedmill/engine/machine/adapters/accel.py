"""NPUs with a driver in Linux: /sys/class/accel, and Qualcomm's FastRPC nodes.

The accel subsystem: Documentation/accel/introduction.rst of the kernel. FastRPC nodes are what onnxruntime-qnn
looks for (onnxruntime-qnn pull request 557).
"""

from __future__ import annotations

from pathlib import Path

from embedmill.engine.machine.adapters.adapter import Adapter, Look
from embedmill.engine.machine.adapters.sysfs import closed, device_at, numbered

# Drivers of neural processors; the class holds other accelerators too.
_NEURAL = {"intel_vpu", "amdxdna", "qaic", "rocket", "ethosu"}
_QUALCOMM = 0x5143


def look(root: Path = Path("/")) -> Look:
    """Every device of /sys/class/accel, and the compute DSP of a Snapdragon."""
    accels = (_adapter(accel, root) for accel in numbered(root / "sys/class/accel", "accel"))
    return Look(adapters=(*accels, *_hexagon(root)))


def _adapter(accel: Path, root: Path) -> Adapter:
    device = device_at(accel / "device", root, accel)
    return Adapter(
        seen_by="accel",
        name=device.name,
        kind="npu" if device.driver.partition(" ")[0] in _NEURAL else "unknown",
        vendor_id=device.vendor_id,
        device_id=device.device_id,
        driver=device.driver,
        note=closed(root / "dev/accel" / accel.name),
    )


def _hexagon(root: Path) -> tuple[Adapter, ...]:
    nodes = [node for name in ("fastrpc-cdsp", "fastrpc-cdsp-secure") if (node := root / "dev" / name).exists()]
    if not nodes:
        return ()
    adapter = Adapter(
        seen_by="fastrpc",
        name="Qualcomm Hexagon",
        kind="npu",
        vendor_id=_QUALCOMM,
        driver="fastrpc",
        note=closed(nodes[0]),
    )
    return (adapter,)
