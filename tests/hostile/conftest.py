"""The command line on a job of ten good rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.command import Cli


@pytest.fixture
def cli(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(tmp_path, tiny_model, capsys)
