"""What a run ran on, for its manifest."""

from __future__ import annotations

import platform
from importlib import metadata

_PACKAGES = ("numpy", "pyarrow", "tokenizers", "onnxruntime", "onnxruntime-directml", "onnxruntime-windowsml")


def version() -> str:
    """The installed version of embedmill."""
    return metadata.version("embedmill")


def environment() -> dict[str, str]:
    """System, processor and the versions of what computes."""
    found = {"system": platform.platform(), "machine": platform.machine(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
