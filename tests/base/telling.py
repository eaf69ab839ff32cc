"""A child that prints what it may report."""

from __future__ import annotations

import os

from embedmill.base import telemetry


def main() -> None:
    """Print the variables and the state."""
    names = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
    print(*[os.environ.get(name) for name in names], telemetry.allowed())
