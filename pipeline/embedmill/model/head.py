"""Pooling, dense layers, truncation of dimensions and normalisation as the last nodes of a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from onnx import TensorProto
from safetensors import SafetensorError
from safetensors.numpy import load_file

from embedmill.base.errors import ModelError
from embedmill.model.graph import GraphWriter
from embedmill.model.recipe import Pooling, Recipe

OUTPUT = "embedmill.embedding"
Floats = npt.NDArray[np.float32]


class DenseWeights(Struct, frozen=True, kw_only=True):
    """One linear layer: `weight` float32 [in, out], `bias` float32 [out] or None, an ONNX activation."""

    weight: Floats
    bias: Floats | None
    activation: str


def append_head(
    graph: GraphWriter,
    *,
    tokens: str,
    mask: str,
    hidden: int,
    recipe: Recipe,
    dense: Sequence[DenseWeights] = (),
    dim: int | None = None,
) -> int:
    """Turn `tokens` float32 [batch, sequence, hidden] into the output float32 [batch, dim].

    `mask` is int64 [batch, sequence], 1 on real tokens, padding to the right. `dim` keeps the first
    components only (Matryoshka), before normalisation. Returns the width of the output; raises
    ModelError where `dim` exceeds it.
    """
    pooled = [_POOLING[mode](graph, tokens, mask) for mode in recipe.pooling]
    vector = pooled[0] if len(pooled) == 1 else graph.op("Concat", *pooled, axis=1)
    width = hidden * len(pooled)
    for number, layer in enumerate(dense):
        vector = graph.linear(vector, f"dense.{number}", layer.weight, layer.bias)
        vector = graph.op(layer.activation, vector) if layer.activation else vector
        width = layer.weight.shape[1]
    if dim is not None:
        if dim > width:
            raise ModelError(f"--dim {dim} is more than the {width} dimensions of this model")
        vector = graph.op("Slice", vector, graph.ints(0), graph.ints(dim), graph.ints(1))
        width = dim
    if recipe.normalize:
        vector = _normalize(graph, vector)
    graph.op("Identity", vector, name=OUTPUT)
    return width


def read_dense(source: Path, recipe: Recipe) -> list[DenseWeights]:
    """The weights of the recipe's dense layers. Raises ModelError if a file is missing."""
    layers = []
    for layer in recipe.dense:
        path = source / layer.path / "model.safetensors"
        if not path.is_file():
            raise ModelError(f"{path} is missing: the model's Dense layer keeps its weights there; fetch it again")
        try:
            tensors = load_file(path)
            weight = tensors["linear.weight"].T
        except (SafetensorError, OSError, KeyError) as error:
            raise ModelError(f"{path} holds no readable `linear.weight` ({error}); fetch the model again") from error
        bias = tensors.get("linear.bias")
        layers.append(
            DenseWeights(
                weight=np.ascontiguousarray(weight, np.float32),
                bias=None if bias is None else np.asarray(bias, np.float32),
                activation=layer.activation,
            )
        )
    return layers


def _float_mask(graph: GraphWriter, mask: str) -> str:
    """The mask as float32 [batch, sequence, 1]."""
    return graph.unsqueeze(graph.op("Cast", mask, to=TensorProto.FLOAT), 2)


def _masked_sum(graph: GraphWriter, tokens: str, mask: str) -> tuple[str, str]:
    """Sum over real tokens float32 [batch, hidden], and their number float32 [batch, 1]."""
    weights = _float_mask(graph, mask)
    total = graph.reduce("ReduceSum", graph.op("Mul", tokens, weights), 1, keepdims=False)
    count = graph.reduce("ReduceSum", weights, 1, keepdims=False)
    return total, graph.op("Max", count, graph.scalar(1e-9))


def _mean(graph: GraphWriter, tokens: str, mask: str) -> str:
    return graph.op("Div", *_masked_sum(graph, tokens, mask))


def _mean_sqrt_len(graph: GraphWriter, tokens: str, mask: str) -> str:
    total, count = _masked_sum(graph, tokens, mask)
    return graph.op("Div", total, graph.op("Sqrt", count))


def _cls(graph: GraphWriter, tokens: str, mask: str) -> str:
    first = graph.weight("first_token", np.array(0, np.int64))
    return graph.op("Gather", tokens, first, axis=1)


def _last(graph: GraphWriter, tokens: str, mask: str) -> str:
    length = graph.reduce("ReduceSum", mask, 1, keepdims=True)
    return graph.op("GatherND", tokens, graph.op("Sub", length, graph.ints(1)), batch_dims=1)


def _max(graph: GraphWriter, tokens: str, mask: str) -> str:
    weights = _float_mask(graph, mask)
    padding = graph.op("Mul", graph.op("Sub", graph.scalar(1.0), weights), graph.scalar(-1e9))
    return graph.reduce("ReduceMax", graph.op("Add", tokens, padding), 1, keepdims=False)


_POOLING: dict[Pooling, Callable[[GraphWriter, str, str], str]] = {
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "cls": _cls,
    "last": _last,
    "max": _max,
}


def _normalize(graph: GraphWriter, vector: str) -> str:
    """x / max(|x|, 1e-12), as torch.nn.functional.normalize does it."""
    squares = graph.reduce("ReduceSum", graph.op("Mul", vector, vector), 1, keepdims=True)
    norm = graph.op("Max", graph.op("Sqrt", squares), graph.scalar(1e-12))
    return graph.op("Div", vector, norm)
