"""Works for an engine, and a session that needs no device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.batch.packer import pack
from pipeline.engine.catalogue import PROVIDERS, Provider
from pipeline.records import Batch, FloatArray, Graph, Model, Tokens, Work

CPU = PROVIDERS[0]


def tokens_of(texts: Sequence[Sequence[int]]) -> Tokens:
    """Tokens of texts given as lists of ids."""
    return Tokens(
        ids=np.array([token for text in texts for token in text], np.int32),
        offsets=np.cumsum([0, *map(len, texts)], dtype=np.int64),
        truncated=np.zeros(len(texts), np.bool_),
    )


def work_of(texts: Sequence[Sequence[int]], *, budget_tokens: int = 16) -> Work:
    """Texts packed into batches."""
    tokens = tokens_of(texts)
    return Work(tokens=tokens, batches=pack(tokens.lengths, budget_tokens=budget_tokens))


def model(*, dim: int = 2, normalized: bool = False) -> Model:
    """A model that only a fake session can run."""
    return Model(
        name="fake",
        identity="0" * 64,
        graphs={"fused": Graph(path="nowhere/fused.onnx", optimise=False)},
        tokenizer="nowhere/tokenizer.json",
        dim=dim,
        pad_id=0,
        max_tokens=32,
        prompt="",
        lowercase=False,
        normalized=normalized,
    )


def vector_of(text: Sequence[int]) -> list[int]:
    """What the fake session gives for a text: its first token and its length."""
    return [text[0], len(text)]


class FakeSession:
    """Stands in for a Session; `answer`, where it is set, gives the vectors of a batch."""

    answer: ClassVar[Callable[[Tokens, Batch], FloatArray] | None] = None
    ran: ClassVar[list[Batch]] = []
    opened: ClassVar[list[tuple[Path, Provider, dict[str, Any]]]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, graph: Path, provider: Provider, **options: Any) -> None:
        self.opened.append((graph, provider, options))

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        with self.lock:
            self.ran.append(batch)
        answer = type(self).answer
        if answer is not None:
            return answer(tokens, batch)
        texts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist() for row in batch.rows]
        return np.array([vector_of(text) for text in texts], np.float32)
