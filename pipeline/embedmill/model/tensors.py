"""Read float tensors of one or several safetensors files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from embedmill.base.errors import ModelError
from embedmill.base.records import FloatArray
from embedmill.model.contents import stand_in

_FLOATS = ("F64", "F32", "F16", "BF16")


class Tensors:
    """Lazy float32 view of all tensors, by name."""

    def __init__(self, files: Sequence[tuple[Path, Any]]) -> None:
        self.place = files[0][0] if len(files) == 1 else files[0][0].parent
        self._found = {name: (path, file) for path, file in files for name in file.keys()}  # noqa: SIM118 (no dict)
        # Of tensors that share memory one is stored; the metadata may name it for the others.
        self._shared = {name: kept for _, file in files for name, kept in (file.metadata() or {}).items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __contains__(self, name: str) -> bool:
        return name in self._found or self._shared.get(name) in self._found

    def __getitem__(self, name: str) -> FloatArray:
        """Return a tensor as float32. Raises ModelError for integers."""
        stored = name if name in self._found else self._shared.get(name, name)
        if stored not in self._found:
            raise ModelError(f"{self.place} has no tensor {name!r}, which the model that config.json states needs")
        path, file = self._found[stored]
        kind = file.get_slice(stored).get_dtype()
        if kind not in _FLOATS:
            raise ModelError(
                f"{path}: its tensor {name!r} holds {kind}, so its weights are quantised; add the model with its"
                " float weights, or as an ONNX export"
            )
        return np.asarray(file.get_tensor(stored), np.float32)

    def get(self, name: str) -> FloatArray | None:
        """Return a tensor as float32, if there. Raises ModelError."""
        return self[name] if name in self else None  # noqa: SIM401 (this is get)


@contextmanager
def open_tensors(paths: Sequence[Path]) -> Iterator[Tensors]:
    """Open safetensors files; raise ModelError naming an unreadable one."""
    with ExitStack() as stack:
        yield Tensors([(path, stack.enter_context(_open(path))) for path in paths])


def _open(path: Path) -> Any:
    try:
        reason = stand_in(path)
        if reason is None:
            return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}): incomplete, or of another kind; compare its size"
            " and sha256 with the source's"
        ) from error
    raise ModelError(f"{path} is not a readable safetensors file: {reason}")
