"""Append pooling, dense layers, truncation and normalisation to a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from onnx import TensorProto

from embedmill.base.errors import ModelError
from embedmill.base.records import FloatArray
from embedmill.model.graph import GraphWriter
from embedmill.model.recipe import Pooling, Recipe
from embedmill.model.tensors import open_tensors

OUTPUT = "embedmill.embedding"
# GatherND has batch_dims since.
_GATHER_BATCHES = 12
SAVE_AGAIN = (
    "save the model with `python -c \"import sentence_transformers as s; s.SentenceTransformer('IN').save('OUT')\"`"
)


class DenseWeights(Struct, frozen=True, kw_only=True):
    """Dense layer: float32 `weight` [in, out], `bias` [out], ONNX activation."""

    weight: FloatArray
    bias: FloatArray | None
    activation: str


def append_head(
    graph: GraphWriter,
    tokens: str,
    *,
    hidden: int,
    recipe: Recipe,
    dense: Sequence[DenseWeights] = (),
    dim: int | None = None,
) -> int:
    """Append the head; return the output's width.

    `tokens` is float32 [batch, sequence, hidden], the output float32 [batch, width]. The graph's `attention_mask` is
    int64 [batch, sequence], 1 on real tokens, padding to the right. `dim` keeps the first components only (Matryoshka),
    before normalisation. Raises ModelError where `dim` exceeds the width.
    """
    pooled = [_POOLING[mode](graph, tokens, "attention_mask") for mode in recipe.pooling]
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
    # Whatever node came last, the output has one name.
    graph.op("Identity", vector, name=OUTPUT)
    return width


def read_dense(source: Path, recipe: Recipe) -> list[DenseWeights]:
    """Read dense layers; raise ModelError for missing or unreadable files."""
    layers = []
    for layer in recipe.dense:
        path = source / layer.path / "model.safetensors"
        if not path.is_file():
            pickled = path.with_name("pytorch_model.bin").is_file()
            raise ModelError(
                f"{path} is missing: the model's Dense layer keeps its weights there"
                + (f"; pytorch_model.bin is a pickle and never opened: {SAVE_AGAIN}" if pickled else ", copy it there")
            )
        with open_tensors([path]) as tensors:
            weight = np.ascontiguousarray(tensors["linear.weight"].T)
            bias = tensors.get("linear.bias")
        layers.append(DenseWeights(weight=weight, bias=bias, activation=layer.activation))
    return layers


def _float_mask(graph: GraphWriter, mask: str) -> str:
    """Cast the mask to float32 [batch, sequence, 1]."""
    return graph.unsqueeze(graph.op("Cast", mask, to=TensorProto.FLOAT), 2)


def _masked_sum(graph: GraphWriter, tokens: str, mask: str) -> tuple[str, str]:
    """Sum real tokens [batch, hidden]; count real tokens [batch, 1]."""
    weights = _float_mask(graph, mask)
    total = graph.reduce("ReduceSum", graph.op("Mul", tokens, weights), 1, keepdims=False)
    count = graph.reduce("ReduceSum", weights, 1, keepdims=False)
    # The minimum that sentence-transformers divides by.
    return total, graph.op("Max", count, graph.scalar(1e-9))


def _mean(graph: GraphWriter, tokens: str, mask: str) -> str:
    return graph.op("Div", *_masked_sum(graph, tokens, mask))


def _mean_sqrt_len(graph: GraphWriter, tokens: str, mask: str) -> str:
    total, count = _masked_sum(graph, tokens, mask)
    return graph.op("Div", total, graph.op("Sqrt", count))


def _cls(graph: GraphWriter, tokens: str, mask: str) -> str:
    return graph.op("Gather", tokens, graph.weight("first_token", np.array(0, np.int64)), axis=1)


def _last(graph: GraphWriter, tokens: str, mask: str) -> str:
    # Padding is to the right, so the last real token is at length - 1.
    if graph.opset < _GATHER_BATCHES:
        raise ModelError(
            f"last pooling needs opset {_GATHER_BATCHES}, and this export has {graph.opset}; export it again"
        )
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
    # x / max(|x|, 1e-12), as in torch.nn.functional.normalize.
    squares = graph.reduce("ReduceSum", graph.op("Mul", vector, vector), 1, keepdims=True)
    norm = graph.op("Max", graph.op("Sqrt", squares), graph.scalar(1e-12))
    return graph.op("Div", vector, norm)
