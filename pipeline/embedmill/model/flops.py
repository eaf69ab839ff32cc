"""Count floating point operations per text in an ONNX graph.

A matrix product of [m, k] and [k, n] takes 2 m k n operations: a multiplication and an addition per term. For an
encoder that makes, per layer of width h and feed-forward width f, 2 (4 h^2 + 2 h f) per token and 4 s h more for
attention among s tokens (Kaplan et al. 2020, "Scaling laws for neural language models", section 2.1; as "model FLOPs"
of a utilisation in Chowdhery et al. 2022, "PaLM", appendix B). Nothing but matrix products is counted: not the lookup
of embeddings, norms, softmax or activations.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from msgspec import Struct
from onnx import shape_inference

from embedmill.base.records import IntArray

_PRODUCTS = frozenset({"MatMul", "Gemm"})
# Other operators that contain matrix products; the number of these products is not known here.
_OPAQUE = ("Attention", "MatMul", "Gemm", "Einsum", "Conv", "LSTM", "GRU", "RNN", "MoE")
# The cost of s tokens is a polynomial of degree 2, so three lengths determine it (not 1, which is broadcast).
_LENGTHS = (2, 3, 4)
# Only the shapes of weights are needed; the values of short tensors are kept, as they may be shapes themselves.
_LONGEST_SHAPE_BYTES = 1024


class TextFlops(Struct, frozen=True, kw_only=True):
    """Operations for s tokens: `text` + `token`·s + `pair`·s²."""

    text: int
    token: int
    pair: int

    def total(self, lengths: IntArray) -> int:
        """Return operations for texts of int64 [n] `lengths` without padding."""
        # Python integers do not overflow.
        exact = lengths.astype(object)
        return int(self.text * len(exact) + self.token * exact.sum() + self.pair * (exact**2).sum())


def text_flops(graph: Path) -> TextFlops | None:
    """Count an unfused graph; return None for an unknown product."""
    try:
        model = onnx.load_model(graph, load_external_data=False)
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) > _LONGEST_SHAPE_BYTES:
                tensor.ClearField("raw_data")
        counts = [_count_flops(model, length) for length in _LENGTHS]
    except (OSError, ValueError, DecodeError, shape_inference.InferenceError):
        return None
    known = [Fraction(count) for count in counts if count is not None]
    if len(known) < len(_LENGTHS):
        return None
    two, three, four = known
    pair = (four - 2 * three + two) / 2
    token = three - two - 5 * pair
    text = two - 2 * token - 4 * pair
    if any(part.denominator != 1 for part in (text, token, pair)):
        return None
    return TextFlops(text=int(text), token=int(token), pair=int(pair))


def _count_flops(model: onnx.ModelProto, length: int) -> int | None:
    """Count a text of `length` tokens; None for unknown shapes."""
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, (1, length), strict=False):
            dim.dim_value = size
    # data_prop follows shapes that the graph computes itself.
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes |= {value.name: _shape(value) for value in [*graph.input, *graph.value_info, *graph.output]}
    counts = [_node_flops(node, shapes) for node in graph.node]
    return None if None in counts else sum(count for count in counts if count is not None)


def _shape(value: onnx.ValueInfoProto) -> list[int]:
    # dim_value is 0 for an unknown size.
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _node_flops(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> int | None:
    # A subgraph may run any number of times.
    if any(attribute.HasField("g") for attribute in node.attribute):
        return None
    if node.domain in ("", "ai.onnx") and node.op_type in _PRODUCTS:
        left, output = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        count = 2 * left[0 if transposed else -1] * prod(output) if left and output else 0
        return count or None
    return None if any(part in node.op_type for part in _OPAQUE) else 0
