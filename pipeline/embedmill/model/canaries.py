"""Canary texts, with reference vectors computed on CPU in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from embedmill.base.errors import ModelError
from embedmill.base.records import BoolArray, Canaries, FloatArray, IntArray, Tokens
from embedmill.model.names import CANARIES

# From one token to over two hundred, in prose, code and several scripts: errors may depend on length and content.
_RIVER = "The river rose for nine days, and on the tenth the ferryman tied his boat to the church door and waited. "
TEXTS: tuple[str, ...] = (
    "a",
    "Yes.",
    "cold rain",
    "SELECT 42",
    "Ünïcödé, naïveté",
    "The cat sat on the mat.",
    "int main(void) { return 0; }",
    "東京は日本の首都です。",
    "Call me at 07:45, or not at all; the price is $1,299.99.",
    "https://example.org/a/b?c=d&e=f#g returned 404 Not Found",
    "Water boils at 100 degrees Celsius at sea level, and at about 71 degrees on the highest mountain.",
    "To whom it may concern: the parcel was left with the neighbour in number nine, who was not told what it held.",
    _RIVER * 2,
    _RIVER * 4,
    "def area(radius):\n    return 3.14159 * radius ** 2\n\n" * 5,
    _RIVER * 9,
)


def write_canaries(folder: Path, canaries: Canaries) -> Path:
    """Write canaries into a bundle's folder; return the file."""
    tokens = canaries.tokens
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": tokens.ids,
        "offsets": tokens.offsets,
        "truncated": tokens.truncated,
        "vectors": np.ascontiguousarray(canaries.vectors, np.float32),
    }
    (folder / CANARIES).write_bytes(save(arrays))
    return folder / CANARIES


def read_canaries(folder: Path) -> Canaries:
    """Read canaries; raise ModelError where missing or damaged."""
    try:
        arrays = load_file(folder / CANARIES)
        _check(**arrays)
        tokens = Tokens(ids=arrays["ids"], offsets=arrays["offsets"], truncated=arrays["truncated"])
        return Canaries(tokens=tokens, vectors=arrays["vectors"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CANARIES} is missing or damaged ({error}); add the model again") from error


def _check(ids: IntArray, offsets: IntArray, truncated: BoolArray, vectors: FloatArray) -> None:
    """Raise ValueError for arrays that do not fit together."""
    texts = len(truncated)
    fit = offsets.shape == (texts + 1,) and ids.ndim == 1 and vectors.ndim == 2 and len(vectors) == texts
    if not fit or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 1).any() or (ids < 0).any():
        raise ValueError("its arrays do not fit together")
