"""Cache of compiled contexts by graph, shape, device and version."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedmill.base.environment import versions_of
from embedmill.base.files import local
from embedmill.base.home import home_folder, key_of, scratch_folder
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device

_FILE = "context.onnx"


class ContextCache:
    """Folder of compiled contexts."""

    def __init__(self, folder: Path | None = None) -> None:
        """Use `folder`, by default `contexts` in `home_folder`."""
        self._folder = folder or home_folder() / "contexts"

    def key(self, provider: Provider, plan: dict[str, Any], device: Device | None) -> str:
        """Hash plan (with a hash as `graph`), device and versions."""
        # Another version may compile the same graph to something else, or not load what an older one wrote.
        packages = {"onnxruntime", *(found.package for found in provider.distributions)}
        known = None if device is None else [device.name, device.metadata]
        return key_of([provider.name, plan, known, versions_of(sorted(packages))])

    def find(self, key: str) -> Path | None:
        """Find the cached context of a key."""
        path = self._folder / key / _FILE
        return path if path.is_file() else None

    def discard(self, key: str) -> None:
        """Remove a context that does not load."""
        shutil.rmtree(self._folder / key, ignore_errors=True)

    @contextmanager
    def new(self, key: str) -> Iterator[Path]:
        """Yield a path to write; publish the context after success."""
        with scratch_folder(self._folder) as scratch:
            folder = scratch / key
            folder.mkdir()
            yield folder / _FILE
            # A provider that has nothing to compile writes no file.
            if (folder / _FILE).is_file():
                local.publish_folder(folder, self._folder / key)
