"""GPUs of the Windows host inside WSL 2: /dev/dxg."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedmill.engine.machine.adapters.adapter import Adapter, Detection
from embedmill.engine.machine.adapters.sysfs import access_problem

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

_LIBRARY = Path("usr/lib/wsl/lib/libd3d12.so")


def detect(machine: Machine, root: Path = Path("/")) -> Detection:
    """Detect the node; number and names of adapters stay unknown."""
    node = root / "dev/dxg"
    if machine.wsl == 1:
        return Detection(reason="WSL 1 shows no device of the Windows host")
    if not node.exists():
        missing = "there is no /dev/dxg: Windows shares no GPU with this WSL 2 (its driver may be too old)"
        return Detection(reason=missing if machine.wsl else "")
    note = access_problem(node) or ("" if (root / _LIBRARY).exists() else f"/{_LIBRARY.as_posix()} is missing")
    adapter = Adapter(seen_by="dxg", name="adapters of the Windows host", kind="unknown", note=note)
    return Detection(adapters=(adapter,))
