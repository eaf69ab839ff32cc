"""Embedding of texts in memory: no files, shards or ledger."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from embedmill.base import telemetry
from embedmill.base.config import DEFAULT_MODEL, EngineTable, TextTable
from embedmill.base.errors import InputError
from embedmill.base.records import FloatArray, Work
from embedmill.base.signals import checkpoint
from embedmill.base.streams import hold_descriptors
from embedmill.batch.pack import pack
from embedmill.batch.tokenise import Tokeniser
from embedmill.engine.engine import Engine
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.start import runner_for
from embedmill.engine.spec import EngineSpec
from embedmill.jobs.models import find_bundle
from embedmill.model.bundle import check_files
from embedmill.tune.provider import choose_target

LOG = logging.getLogger("embedmill")
# Texts tokenised at once; the next ones are tokenised while a device computes.
_EMBED_TEXTS = 4096


class Embedder:
    """Loaded model for many calls of `embed`; a context manager."""

    def __init__(
        self, model: str = DEFAULT_MODEL, *, text: TextTable | None = None, engine: EngineTable | None = None
    ) -> None:
        """Load a model on a provider. Raises ModelError, DeviceError."""
        hold_descriptors()
        telemetry.settle((engine or EngineTable()).telemetry)
        bundle = find_bundle(model)
        check_files(bundle)
        self.model = bundle.model(text or TextTable())
        wish = engine or EngineTable()
        target = choose_target(self.model, wish, lambda: self.model.canaries.tokens, texts=0)
        spec = EngineSpec.decide(self.model, target, wish)
        self._packing = spec.packing
        self._tokeniser = Tokeniser.of(self.model)
        self._engine = Engine(runner_for(spec, RunnerOptions(watched=False), notify=LOG.warning))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.__exit__()

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Embed n texts in order: float32 [n, dim]. Raises InputError."""
        _check_texts(texts)
        parts = [vectors for _, vectors in self._engine.embed(self._works(texts))]
        return np.concatenate([np.empty((0, self.model.dim), np.float32), *parts])

    def _works(self, texts: Sequence[str]) -> Iterator[tuple[int, Work]]:
        for first in range(0, len(texts), _EMBED_TEXTS):
            tokens = self._tokeniser.encode(texts[first : first + _EMBED_TEXTS], between=checkpoint)
            yield first, Work(tokens=tokens, batches=pack(tokens.lengths, self._packing))


def _check_texts(texts: Sequence[str]) -> None:
    # A string is a sequence of strings too, and would be embedded letter by letter.
    if isinstance(texts, str):
        raise InputError("texts is one string; pass a list of strings")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{number}] is {type(text).__name__}; expected a string")


def embed(
    texts: Sequence[str], *, model: str = DEFAULT_MODEL, prompt: str | None = None, provider: str = "auto"
) -> FloatArray:
    """Embed n texts in order: float32 [n, dim].

    `prompt` is put before every text (None: the model's own default). The model is loaded for this
    call; use `Embedder` for many. Raises InputError, ModelError or DeviceError.
    """
    wish = EngineTable(provider=provider)
    with Embedder(model, text=TextTable(prompt=prompt), engine=wish) as embedder:
        return embedder.embed(texts)
