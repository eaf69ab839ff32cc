"""A model is described with recipe and prompts."""

from __future__ import annotations

from pathlib import Path

from embedmill.jobs.models import add_model
from embedmill.report.models import model_summary, models_summary
from tests.support.tiny_model import write_tiny_model


def test_a_model_tells_its_recipe_and_prompts(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model", pooling=["cls", "mean"], prompts={"query": "q: "})
    words = model_summary(add_model(str(model), name="mine"))
    assert words.startswith("mine (folder model)")
    assert "64 dimensions, cls + mean pooling, normalised, at most 32 tokens" in words
    assert "prompt 'query': 'q: '" in words


def test_an_empty_list_of_models_says_how_to_begin(tmp_path: Path) -> None:
    assert "no models in" in models_summary([], tmp_path)
    assert "`embedmill model add`" in models_summary([], tmp_path)
