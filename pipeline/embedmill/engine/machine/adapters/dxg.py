"""The way from WSL 2 to the GPUs of the Windows host: /dev/dxg."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedmill.engine.machine.adapters.adapter import Adapter, Look
from embedmill.engine.machine.adapters.sysfs import closed

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

_LIBRARY = Path("usr/lib/wsl/lib/libd3d12.so")


def look(machine: Machine, root: Path = Path("/")) -> Look:
    """The node, where there is one: how many adapters are behind it, and which, it does not say."""
    node = root / "dev/dxg"
    if machine.wsl == 1:
        return Look(reason="WSL 1 shows no device of the Windows host")
    if not node.exists():
        missing = "there is no /dev/dxg: Windows shares no GPU with this WSL 2 (its driver may be too old)"
        return Look(reason=missing if machine.wsl else "")
    note = closed(node) or ("" if (root / _LIBRARY).exists() else f"/{_LIBRARY.as_posix()} is missing")
    return Look(adapters=(Adapter(seen_by="dxg", name="adapters of the Windows host", kind="unknown", note=note),))
