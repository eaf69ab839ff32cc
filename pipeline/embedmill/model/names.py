"""Check file names that a model's files refer to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from embedmill.base.errors import ModelError

# Files of a bundle that hold no weights. Its identity leaves the canaries out, which differ by machine.
CARD, TOKENIZER, CANARIES = "bundle.json", "tokenizer.json", "canaries.safetensors"
_WITHOUT_WEIGHTS = (CARD, TOKENIZER, CANARIES)


def holds_weights(name: str) -> bool:
    """Tell if a file may hold weights."""
    return name.lower() not in _WITHOUT_WEIGHTS and not name.lower().endswith(".onnx")


def is_plain(name: str) -> bool:
    """Return True for a name without folders on any system."""
    # Windows takes "\" and ":" for folders and drives; NUL ends a path.
    return PurePosixPath(name).name == name and not set(name) & set("\\:\0")


def check_names(card: Path, needed: Iterable[str], recorded: Iterable[str]) -> None:
    """Raise ModelError unless all names are plain and have sha256."""
    recorded = set(recorded)
    for name in (*needed, *sorted(recorded)):
        if not is_plain(name):
            raise ModelError(f"{card} names the file {name!r}, outside its folder; that is refused")
        if name not in recorded:
            raise ModelError(f"{card} has no sha256 of {name}, which is needed; add the model again")
