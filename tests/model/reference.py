"""Reference for the graphs: BERT and the sentence-transformers head in NumPy, one text at a time.

Formulas: Devlin et al. 2018 with the erf gelu of Hendrycks and Gimpel 2016; poolings as in
sentence_transformers/sentence_transformer/modules/pooling.py, version 6.2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from tests.support import tiny_model as tiny

Array = np.ndarray[Any, np.dtype[np.float64]]

POOL: dict[str, Callable[[Array], Array]] = {
    "mean": lambda tokens: tokens.mean(axis=0),
    "mean_sqrt_len": lambda tokens: tokens.sum(axis=0) / math.sqrt(len(tokens)),
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(axis=0),
}


def token_embeddings(folder: Path, ids: Sequence[int]) -> Array:
    """Token embeddings float64 [tokens, hidden] of one text, by the weights of a tiny model's folder."""
    weights = {name: array.astype(np.float64) for name, array in load_file(folder / "model.safetensors").items()}
    value = (
        weights["embeddings.word_embeddings.weight"][list(ids)]
        + weights["embeddings.position_embeddings.weight"][_positions(folder, ids)]
        + weights["embeddings.token_type_embeddings.weight"][0]
    )
    value = _norm(weights, "embeddings.LayerNorm", value)
    for layer in range(tiny.LAYERS):
        name = f"encoder.layer.{layer}"
        attended = _linear(weights, f"{name}.attention.output.dense", _attention(weights, name, value))
        value = _norm(weights, f"{name}.attention.output.LayerNorm", attended + value)
        inner = _gelu(_linear(weights, f"{name}.intermediate.dense", value))
        value = _norm(weights, f"{name}.output.LayerNorm", _linear(weights, f"{name}.output.dense", inner) + value)
    return value


def vectors(
    folder: Path,
    texts: Sequence[Sequence[int]],
    *,
    pooling: Sequence[str],
    normalize: bool,
    head: Callable[[Array], Array] = lambda vector: vector,
) -> Array:
    """Vectors float64 [n, dim] of n texts; `head` is what comes between pooling and normalisation."""
    pooled = [np.concatenate([POOL[mode](token_embeddings(folder, ids)) for mode in pooling]) for ids in texts]
    found = np.stack([head(vector) for vector in pooled])
    return found / np.linalg.norm(found, axis=1, keepdims=True) if normalize else found


def _positions(folder: Path, ids: Sequence[int]) -> list[int]:
    """Places in the text; RoBERTa counts from the padding id + 1, and gives padding tokens the padding id."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    if config["model_type"] == "bert":
        return list(range(len(ids)))
    padding, found = config["pad_token_id"], list[int]()
    for number, token in enumerate(ids):
        tokens = sum(before != padding for before in ids[: number + 1])
        found.append(padding if token == padding else padding + tokens)
    return found


def _attention(weights: dict[str, Array], name: str, value: Array) -> Array:
    query, key, val = (
        _linear(weights, f"{name}.attention.self.{part}", value).reshape(len(value), tiny.HEADS, -1).swapaxes(0, 1)
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(1, 2) / math.sqrt(query.shape[-1])
    weight = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context = weight / weight.sum(axis=-1, keepdims=True) @ val
    merged: Array = context.swapaxes(0, 1).reshape(value.shape)
    return merged


def _linear(weights: dict[str, Array], name: str, value: Array) -> Array:
    product: Array = value @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
    return product


def _norm(weights: dict[str, Array], name: str, value: Array) -> Array:
    centred = value - value.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + tiny.EPSILON)
    result: Array = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return result


def _gelu(value: Array) -> Array:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    return np.asarray(0.5 * value * (1 + erf(value / math.sqrt(2))))
