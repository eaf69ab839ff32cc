"""What the tests of the source room share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.corpora import Corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """An empty folder for input files."""
    return Corpus(tmp_path)
