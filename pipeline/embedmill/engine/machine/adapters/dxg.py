"""Check the path from WSL 2 to Windows' GPUs: /dev/dxg."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedmill.engine.machine.adapters.adapter import Adapter, Scan
from embedmill.engine.machine.adapters.sysfs import access_problem

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

_LIBRARY = Path("usr/lib/wsl/lib/libd3d12.so")


def scan(machine: Machine, root: Path = Path("/")) -> Scan:
    """Return the node as one adapter, if present."""
    node = root / "dev/dxg"
    if machine.wsl == 1:
        return Scan(reason="WSL 1 shows no device of the Windows host")
    if not node.exists():
        missing = "there is no /dev/dxg: Windows shares no GPU with this WSL 2 (its driver may be too old)"
        return Scan(reason=missing if machine.wsl else "")
    note = access_problem(node) or ("" if (root / _LIBRARY).exists() else f"/{_LIBRARY.as_posix()} is missing")
    # The node does not say how many adapters the host has, nor which.
    return Scan(adapters=(Adapter(seen_by="dxg", name="adapters of the Windows host", kind="unknown", note=note),))
