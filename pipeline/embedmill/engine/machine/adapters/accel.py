"""NPUs with a Linux driver: /sys/class/accel and FastRPC nodes."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from embedmill.engine.machine.adapters.adapter import Adapter, Detection
from embedmill.engine.machine.adapters.sysfs import access_problem, numbered_entries, read_adapter

# Drivers of neural processors. The class (Documentation/accel/introduction.rst of the kernel) has other accelerators.
_NEURAL = {"intel_vpu", "amdxdna", "qaic", "rocket", "ethosu"}
_QUALCOMM = 0x5143


def detect(root: Path = Path("/")) -> Detection:
    """Detect accelerators, and the compute DSP of a Snapdragon."""
    accels = (_adapter(accel, root) for accel in numbered_entries(root / "sys/class/accel", "accel"))
    return Detection(adapters=(*accels, *_hexagon(root)))


def _adapter(accel: Path, root: Path) -> Adapter:
    adapter = read_adapter("accel", accel / "device", root, accel)
    kind = "npu" if adapter.driver.partition(" ")[0] in _NEURAL else "unknown"
    return replace(adapter, kind=kind, note=access_problem(root / "dev/accel" / accel.name))


def _hexagon(root: Path) -> tuple[Adapter, ...]:
    # The nodes that onnxruntime-qnn looks for (its pull request 557).
    nodes = [node for name in ("fastrpc-cdsp", "fastrpc-cdsp-secure") if (node := root / "dev" / name).exists()]
    return tuple(
        Adapter(
            seen_by="fastrpc",
            name="Qualcomm Hexagon",
            kind="npu",
            vendor_id=_QUALCOMM,
            driver="fastrpc",
            note=access_problem(node),
        )
        for node in nodes[:1]
    )
