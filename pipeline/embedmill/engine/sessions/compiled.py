"""What a provider compiled, kept for the next run: one folder per graph, shape, device and version."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from embedmill.base.files import local
from embedmill.base.home import home_folder, key_of
from embedmill.engine.catalogue import find_provider
from embedmill.engine.devices import Device

_FILE = "context.onnx"


class ContextCache:
    """A folder of compiled contexts."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` is by default `contexts` in `home_folder`."""
        self._folder = folder or home_folder() / "contexts"

    def key(self, provider: str, plan: dict[str, Any], device: Device | None) -> str:
        """sha256 over all that a context depends on: the plan (whose `graph` is a hash here), the device, and the
        versions that compile it."""
        packages = {"onnxruntime", *(found.package for found in find_provider(provider).distributions)}
        parts = [provider, plan, None if device is None else [device.name, device.metadata], _versions(packages)]
        return key_of(parts)

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
                local.publish_folder(made, self._folder / key)


def _versions(packages: set[str]) -> dict[str, str]:
    found = {}
    for package in sorted(packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
