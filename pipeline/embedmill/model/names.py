"""The names by which a model's files say where others of its files are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from embedmill.base.errors import ModelError


def is_plain(name: str) -> bool:
    """Whether a name stands for a file in the folder at hand, on any system."""
    return PurePosixPath(name).name == name and not set(name) & set("\\:\0")


def check_names(card: Path, needed: Iterable[str], recorded: Iterable[str]) -> None:
    """Raises ModelError unless every needed file of a bundle is a plain name with a recorded sha256."""
    recorded = set(recorded)
    for name in (*needed, *sorted(recorded)):
        if not is_plain(name):
            raise ModelError(f"{card} names the file {name!r}, outside its folder; that is refused")
        if name not in recorded:
            raise ModelError(f"{card} has no sha256 of {name}, which is needed; add the model again")
