"""Versions of the software that a run used."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata

# ONNX Runtime has a distribution of its own per platform; the absent ones are left out.
_PACKAGES = ("numpy", "pyarrow", "tokenizers", "onnxruntime", "onnxruntime-directml", "onnxruntime-windowsml")


def version() -> str:
    """Return the installed version of embedmill."""
    return metadata.version("embedmill")


def environment() -> dict[str, str]:
    """Return system, processor and package versions for the manifest."""
    found = {"system": platform.platform(), "machine": platform.machine(), "python": platform.python_version()}
    return found | versions_of(_PACKAGES)


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return versions by package; absent packages are left out."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
