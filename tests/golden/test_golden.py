"""Our vectors are those of sentence-transformers, for every golden text and both graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.batch.packer import pack
from pipeline.conductor import Embedder
from pipeline.config import DEFAULT_MODEL, EngineTable, TextTable
from pipeline.engine.catalogue import Provider
from pipeline.engine.streams import Engine
from pipeline.model.bundle import Bundle
from pipeline.records import FloatArray, Work
from pipeline.text.tokenise import Tokeniser

HERE = Path(__file__).parent
LEAST_COSINE = 0.99999
TWO = EngineTable(streams=2, threads=1)


@pytest.fixture(scope="module")
def golden() -> list[dict[str, str]]:
    """The texts, each with its kind."""
    return [json.loads(line) for line in (HERE / "texts.jsonl").read_text("utf-8").splitlines()]


def test_there_are_at_least_500_texts_of_every_kind(golden: list[dict[str, str]]) -> None:
    kinds = {sample["kind"].split()[0] for sample in golden}
    assert len(golden) >= 500
    assert kinds >= {"word", "words", "tokens", "language", "emoji", "control", "space", "html", "code", "prose"}


def test_the_fused_graph_gives_the_golden_vectors(bundle: Bundle, golden: list[dict[str, str]]) -> None:
    with Embedder(DEFAULT_MODEL, engine=TWO) as embedder:
        assert_golden(golden, embedder.embed([sample["text"] for sample in golden]))


def test_the_unfused_graph_gives_the_golden_vectors(bundle: Bundle, golden: list[dict[str, str]]) -> None:
    model = bundle.model(TextTable())
    tokens = Tokeniser(Path(model.tokenizer), max_tokens=model.max_tokens).encode([sample["text"] for sample in golden])
    work = Work(tokens=tokens, batches=pack(tokens.lengths, budget_tokens=512))
    unfused = Provider(name="cpu", ort_name="CPUExecutionProvider", graph="unfused", streams="cores")
    with Engine(model, unfused, TWO) as engine:
        [(_, vectors)] = engine.embed([("golden", work)])
    assert_golden(golden, vectors)


def assert_golden(golden: list[dict[str, str]], vectors: FloatArray) -> None:
    """Every vector points where its golden one does, and has length 1."""
    expected = np.load(HERE / "vectors.npy")
    assert vectors.shape == expected.shape
    cosines = (vectors * expected).sum(axis=1, dtype=np.float64)
    far = [
        (sample["kind"], float(cosine)) for sample, cosine in zip(golden, cosines, strict=True) if cosine < LEAST_COSINE
    ]
    assert far == []
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
