"""Descriptions of models for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedmill.model.bundle import Bundle


def model_summary(bundle: Bundle) -> str:
    """Describe a model: recipe, hashes, folder and prompts."""
    card, recipe = bundle.card, bundle.card.recipe
    lines = [
        f"{card.name} ({card.origin})",
        f"  {card.dim} dimensions, {' + '.join(recipe.pooling)} pooling,"
        f" {'normalised' if recipe.normalize else 'not normalised'}, at most {recipe.max_tokens} tokens",
        f"  weights {card.weights[:12]}, tokenizer {card.tokenizer[:12]}, in {bundle.folder}",
    ]
    lines += [f"  prompt {name!r}: {prompt!r}" for name, prompt in recipe.prompts.items()]
    return "\n".join(lines)


def models_summary(bundles: Sequence[Bundle], folder: Path) -> str:
    """Describe all models of a folder."""
    if not bundles:
        return f"no models in {folder} yet; `embedmill model add` builds the default one"
    return "\n".join(model_summary(bundle) for bundle in bundles)
