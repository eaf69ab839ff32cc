"""The one error of this folder."""

from __future__ import annotations


class SetupError(Exception):
    """The environment cannot be built or entered: what failed, and what to do about it."""
