"""Our vectors are those of sentence-transformers, for every golden text and all four graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedmill.base.config import DEFAULT_MODEL, EngineTable, TextTable
from embedmill.base.records import FloatArray, Packing, Work
from embedmill.batch.pack import pack
from embedmill.batch.tokenise import Tokeniser
from embedmill.engine.catalogue.entry import Precision
from embedmill.jobs.embed import Embedder
from embedmill.model.bundle import Bundle
from tests.support.works import CPU, engine_of, with_graph

HERE = Path(__file__).parent
LEAST_COSINE: dict[Precision, float] = {"fp32": 0.99999, "fp16": 0.999}
FP16_TEXTS = 60
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
        assert_golden(golden, embedder.embed([sample["text"] for sample in golden]), range(len(golden)), "fp32")


@pytest.mark.hostile
def test_the_unfused_graph_gives_the_golden_vectors(bundle: Bundle, golden: list[dict[str, str]]) -> None:
    everything = range(len(golden))
    assert_golden(golden, embedded(bundle, golden, everything, "unfused", "fp32"), everything, "fp32")


@pytest.mark.parametrize("graph", ["fused-fp16", pytest.param("unfused-fp16", marks=pytest.mark.hostile)])
def test_the_graphs_of_half_precision_come_close(bundle: Bundle, golden: list[dict[str, str]], graph: str) -> None:
    spread = range(0, len(golden), len(golden) // FP16_TEXTS)
    assert len(spread) >= FP16_TEXTS
    assert_golden(golden, embedded(bundle, golden, spread, graph, "fp16"), spread, "fp16")


def embedded(
    bundle: Bundle, golden: list[dict[str, str]], numbers: range, graph: str, precision: Precision
) -> FloatArray:
    """Vectors of some golden texts by one graph, on the CPU."""
    model = bundle.model(TextTable())
    tokeniser = Tokeniser.of(model)
    tokens = tokeniser.encode([golden[number]["text"] for number in numbers])
    packing = Packing(budget_tokens=512)
    work = Work(tokens=tokens, batches=pack(tokens.lengths, packing))
    provider = with_graph(CPU, graph, precision=precision, floor=LEAST_COSINE[precision])
    with engine_of(model, TWO, provider=provider, packing=packing, precision=precision) as engine:
        [(_, vectors)] = engine.embed([("golden", work)])
    return vectors


def assert_golden(golden: list[dict[str, str]], vectors: FloatArray, numbers: range, precision: Precision) -> None:
    """The vector of every text of `numbers` points where its golden one does, and has length 1."""
    expected = np.load(HERE / "vectors.npy")[numbers]
    assert vectors.shape == expected.shape
    cosines = (vectors * expected).sum(axis=1, dtype=np.float64)
    kinds = [golden[number]["kind"] for number in numbers]
    least = LEAST_COSINE[precision]
    far = [(kind, float(cosine)) for kind, cosine in zip(kinds, cosines, strict=True) if not cosine >= least]
    assert far == []
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
