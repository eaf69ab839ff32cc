"""Versions of the software that a run used."""

from __future__ import annotations

import platform
from importlib import metadata

# ONNX Runtime has a distribution of its own per platform; the absent ones are left out.
_PACKAGES = ("numpy", "pyarrow", "tokenizers", "onnxruntime", "onnxruntime-directml", "onnxruntime-windowsml")


def version() -> str:
    """Return the installed version of embedmill."""
    return metadata.version("embedmill")


def environment() -> dict[str, str]:
    """Return system, processor and package versions for the manifest."""
    found = {"system": platform.platform(), "machine": platform.machine(), "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
