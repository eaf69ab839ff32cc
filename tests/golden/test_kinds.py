"""RoBERTa's kinds, built from safetensors, give the vectors of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedmill.jobs.embed import Embedder
from tests.support.tiny_model import ROBERTA_KINDS, write_tiny_roberta


@pytest.mark.parametrize("kind", ROBERTA_KINDS)
def test_the_vectors_are_those_of_sentence_transformers(tmp_path: Path, empty_home: Path, kind: str) -> None:
    model = write_tiny_roberta(tmp_path / "model", kind=kind)
    golden = np.load(Path(__file__).parent / "kinds.npz")
    with Embedder(str(model)) as embedder:
        np.testing.assert_allclose(embedder.embed(golden["texts"].tolist()), golden[kind], atol=1e-6)
