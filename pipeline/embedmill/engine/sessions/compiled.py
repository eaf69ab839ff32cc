"""What a provider compiled, kept for the next run: one folder per graph, shape, device and version."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from embedmill.engine.catalogue import find_provider
from embedmill.engine.devices import Device

_FILE = "context.onnx"


class Contexts:
    """A folder of compiled contexts."""

    def __init__(self, folder: Path, publish: Callable[[Path, Path], object]) -> None:
        """`publish` moves a finished folder to its place at once, or leaves the one that is there."""
        self._folder = folder
        self._publish = publish

    def key(self, provider: str, plan: dict[str, Any], device: Device | None) -> str:
        """sha256 over all that a context depends on: the plan (whose `graph` is a hash here), the device, and the
        versions that compile it."""
        packages = {"onnxruntime", *(home.package for home in find_provider(provider).homes)}
        parts = [provider, plan, None if device is None else [device.name, device.metadata], _versions(packages)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def find(self, key: str) -> Path | None:
        """The context that was kept under a key."""
        path = self._folder / key / _FILE
        return path if path.is_file() else None

    def discard(self, key: str) -> None:
        """Remove a context that does not load."""
        shutil.rmtree(self._folder / key, ignore_errors=True)

    @contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """A place to write a context to; it is kept if the block ends well and wrote one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._folder, ignore_cleanup_errors=True) as scratch:
            made = Path(scratch) / key
            made.mkdir()
            yield made / _FILE
            if (made / _FILE).is_file():
                self._publish(made, self._folder / key)


def _versions(packages: set[str]) -> dict[str, str]:
    found = {}
    for package in sorted(packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
