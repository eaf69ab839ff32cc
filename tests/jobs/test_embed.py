"""Texts at hand get their vectors without a job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedmill.base.errors import InputError
from embedmill.jobs.embed import Embedder, embed
from tests.support.jobs import (
    assert_close,
    embedded,
    make_rows,
    texts_of,
    tiny_bundle,
)
from tests.support.tiny_model import HIDDEN


class TestEmbed:
    def test_texts_get_vectors_in_their_order(self, tiny_model: Path) -> None:
        texts = texts_of(make_rows(50))
        with Embedder(str(tiny_bundle(tiny_model))) as embedder:
            together = embedder.embed(texts)
            alone = np.concatenate([embedder.embed([text]) for text in texts])
        assert together.shape == (50, HIDDEN)
        assert together.dtype == np.float32
        assert_close(together, alone)

    def test_no_texts_make_no_vectors(self, tiny_model: Path) -> None:
        assert embed([], model=str(tiny_bundle(tiny_model))).shape == (0, HIDDEN)

    def test_the_short_form_takes_a_prompt(self, tiny_model: Path) -> None:
        vectors = embed(["stone"], model=str(tiny_bundle(tiny_model)), prompt="the river ")
        assert_close(vectors, embedded(tiny_model, ["the river stone"]))

    @pytest.mark.parametrize(("texts", "message"), [("stone", "one string"), (["a", 7], r"texts\[1\] is int")])
    def test_what_is_no_list_of_strings_is_refused(self, tiny_model: Path, texts: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            embed(texts, model=str(tiny_bundle(tiny_model)))
