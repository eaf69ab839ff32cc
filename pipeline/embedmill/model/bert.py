"""Build BERT and RoBERTa encoders in ONNX from safetensors.

Two flavours share one weight file: `fused` uses ONNX Runtime's own operators (CPU, CUDA, DirectML), `unfused`
standard operators only (QNN, WebGPU, OpenVINO). Each computes in float32 or, with `half`, in float16 up to the
token embeddings, which are float32 again for pooling. Inputs: `input_ids`, `attention_mask`, int64 [batch, sequence].
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from onnx import TensorProto

from embedmill.base.errors import ModelError
from embedmill.base.records import FloatArray
from embedmill.model.graph import MICROSOFT, GraphWriter
from embedmill.model.recipe import first_position
from embedmill.model.tensors import Tensors, open_tensors

INPUTS = ("input_ids", "attention_mask")
# RoBERTa is BERT with other positions; these kinds differ from it in training and tokenizer only.
KINDS = ("bert", "roberta", "xlm-roberta", "camembert")
_WORDS = "embeddings.word_embeddings.weight"
# In files converted from TensorFlow (bert-base-uncased among them).
_OLD_NAMES = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

# exp(-1e4) is 0 in float32 and float16 alike, and unlike the smallest float it survives a cast to
# float16 and 8-bit quantisation (Olive, pull request 1597).
_MASK_BIAS = -1e4


class BertShape(Struct, frozen=True, kw_only=True):
    """Dimensions in a `config.json`; positions begin at `first_position`."""

    hidden: int
    heads: int
    layers: int
    epsilon: float
    first_position: int


class BertWeights:
    """BERT tensors by name, without the prefix of a file."""

    def __init__(self, tensors: Tensors) -> None:
        """Find the prefix. Raises ModelError for several encoders."""
        self._tensors = tensors
        prefixes = [name.removesuffix(_WORDS) for name in tensors if name.endswith(_WORDS)]
        if len(prefixes) > 1:
            raise ModelError(
                f"{tensors.place} holds several encoders ({', '.join(sorted(prefixes))}); save one of them alone, or"
                " export it to ONNX"
            )
        self._prefix = prefixes[0] if prefixes else ""

    def __getitem__(self, name: str) -> FloatArray:
        full = self._prefix + name
        for new, old in _OLD_NAMES.items():
            if full not in self._tensors and name.endswith(new):
                full = full.removesuffix(new) + old
        return self._tensors[full]

    def word_embeddings(self, shape: BertShape) -> FloatArray:
        """Return [vocabulary, hidden]; raise ModelError if `shape.hidden` differs."""
        table = self[_WORDS]
        if table.shape[1] != shape.hidden:
            raise ModelError(
                f"{self._tensors.place} has hidden size {table.shape[1]}, but config.json says {shape.hidden};"
                " take both from the same model"
            )
        return table

    def linear(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return weight [in, out] and bias [out] of a layer."""
        # torch stores linear weights as [out, in].
        return np.ascontiguousarray(self[f"{name}.weight"].T), self[f"{name}.bias"]


@contextmanager
def open_weights(*paths: Path) -> Iterator[BertWeights]:
    """Open safetensors files; raise ModelError naming an unreadable one."""
    with open_tensors(paths) as tensors:
        yield BertWeights(tensors)


def read_shape(config: dict[str, Any], folder: Path) -> BertShape:
    """Read `config.json`; raise ModelError unless a plain BERT or RoBERTa."""
    kind = config.get("model_type")
    activation = config.get("hidden_act", "gelu")
    positions = config.get("position_embedding_type", "absolute")
    decoder = ", a decoder" if config.get("is_decoder") else ""
    if kind not in KINDS or (activation, positions) != ("gelu", "absolute") or decoder:
        raise ModelError(
            f"{folder}: only BERT and RoBERTa encoders (gelu, absolute positions) are built from safetensors, this is"
            f" {kind!r} ({activation}, {positions}{decoder}); export it to ONNX (`optimum-cli export onnx --task"
            f" feature-extraction --model {folder} {folder / 'onnx'}`) and add the folder with its onnx/model.onnx"
        )
    try:
        shape = BertShape(
            hidden=_whole(config["hidden_size"]),
            heads=_whole(config["num_attention_heads"]),
            layers=_whole(config["num_hidden_layers"]),
            epsilon=_positive(config.get("layer_norm_eps", 1e-12)),
            first_position=first_position(config, folder),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{folder / 'config.json'}: a size or layer_norm_eps is missing or no such number ({error}); correct it"
        ) from error
    if min(shape.hidden, shape.heads, shape.layers) < 1 or shape.hidden % shape.heads:
        raise ModelError(
            f"{folder / 'config.json'}: hidden_size {shape.hidden} cannot be divided among {shape.heads}"
            f" num_attention_heads, or num_hidden_layers {shape.layers} is below 1; correct it"
        )
    return shape


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r}")
    return value


def _positive(value: Any) -> float:
    # LayerNorm divides by the root of the variance and this; models have 1e-12 to 1e-5.
    if type(value) not in (int, float) or not 0 < value < 1:
        raise TypeError(f"layer_norm_eps {value!r}")
    return float(value)


def append_bert(graph: GraphWriter, weights: BertWeights, shape: BertShape, *, fused: bool, half: bool = False) -> str:
    """Add the encoder; return token embeddings float32 [batch, sequence, hidden]."""
    graph.floats = np.float16 if half else np.float32
    encoder = _Fused(graph, weights, shape) if fused else _Unfused(graph, weights, shape)
    value = encoder.embeddings()
    for layer in range(shape.layers):
        name = f"encoder.layer.{layer}"
        attended = encoder.dense(encoder.attention(value, f"{name}.attention.self"), f"{name}.attention.output.dense")
        value = encoder.norm(graph.op("Add", attended, value), f"{name}.attention.output.LayerNorm")
        inner = encoder.gelu(value, f"{name}.intermediate.dense")
        value = encoder.norm(
            graph.op("Add", encoder.dense(inner, f"{name}.output.dense"), value), f"{name}.output.LayerNorm"
        )
    graph.floats = np.float32
    return graph.cast(value) if half else value


class _Encoder:
    """Layers that both flavours share."""

    def __init__(self, graph: GraphWriter, weights: BertWeights, shape: BertShape) -> None:
        self.graph, self.weights, self.shape = graph, weights, shape

    def embeddings(self) -> str:
        """Add word and position embeddings, normalised."""
        graph, weights = self.graph, self.weights
        position_table = weights["embeddings.position_embeddings.weight"]
        # A single text has token type 0 throughout, so row 0 is added here once.
        position_table = position_table + weights["embeddings.token_type_embeddings.weight"][0]
        word_table = graph.weight("embeddings.words", weights.word_embeddings(self.shape))
        positions = (self.counted if self.shape.first_position else self.leading)(position_table)
        words = graph.op("Gather", word_table, "input_ids", axis=0)
        return self.norm(graph.op("Add", words, self.broadcast(positions, words)), "embeddings.LayerNorm")

    def leading(self, table: FloatArray) -> str:
        """Look up BERT's positions, from 0 on: [sequence, hidden]."""
        graph = self.graph
        sequence = graph.op("Gather", graph.op("Shape", "input_ids"), graph.ints(1), axis=0)
        positions = graph.weight("embeddings.positions", table)
        return graph.op("Slice", positions, graph.ints(0), sequence, graph.ints(0))

    def counted(self, table: FloatArray) -> str:
        """Look up RoBERTa's positions: [batch, sequence, hidden].

        Each token has the padding id + the tokens so far, padding not counted, and padding tokens the padding id
        (transformers: create_position_ids_from_input_ids). A text may hold the padding token, so a slice is not exact.
        """
        graph, padding = self.graph, self.shape.first_position - 1
        # int32, because accelerators compute with few types, and int64 is rarely among them.
        ids = graph.op("Cast", "input_ids", to=TensorProto.INT32)
        is_padding = graph.op("Equal", ids, graph.weight("padding", np.array([padding], np.int32)))
        counts = graph.op("Cast", graph.op("Not", is_padding), to=TensorProto.INT32)
        numbers = graph.op("Mul", graph.op("CumSum", counts, graph.ints(1)), counts)
        return graph.op("Gather", graph.weight("embeddings.positions", table[padding:]), numbers, axis=0)

    def broadcast(self, positions: str, words: str) -> str:
        """Prepare positions for addition to `words` [batch, sequence, hidden]."""
        return positions

    def norm(self, value: str, name: str) -> str:
        # On CPU the fused SkipLayerNormalization measured slower than Add and LayerNormalization (docs/performance.md).
        scale = self.graph.weight(f"{name}.weight", self.weights[f"{name}.weight"])
        bias = self.graph.weight(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.graph.op("LayerNormalization", value, scale, bias, axis=-1, epsilon=self.shape.epsilon)

    def dense(self, value: str, name: str) -> str:
        return self.graph.linear(value, name, *self.weights.linear(name))

    def packed_qkv(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return weight [hidden, 3 hidden] and bias [3 hidden]."""
        layers = [self.weights.linear(f"{name}.{part}") for part in ("query", "key", "value")]
        return np.concatenate([weight for weight, _ in layers], axis=1), np.concatenate([bias for _, bias in layers])


class _Fused(_Encoder):
    """ONNX Runtime's Attention and Gelu operators."""

    def __init__(self, graph: GraphWriter, weights: BertWeights, shape: BertShape) -> None:
        super().__init__(graph, weights, shape)
        # Attention takes a right-padded mask as int32 lengths [batch].
        lengths = graph.reduce("ReduceSum", "attention_mask", 1, keepdims=False)
        self._lengths = graph.op("Cast", lengths, to=TensorProto.INT32)

    def attention(self, value: str, name: str) -> str:
        weight, bias = self.packed_qkv(name)
        packed = (self.graph.weight(f"{name}.qkv.weight", weight), self.graph.weight(f"{name}.qkv.bias", bias))
        return self.graph.op("Attention", value, *packed, self._lengths, domain=MICROSOFT, num_heads=self.shape.heads)

    def gelu(self, value: str, name: str) -> str:
        # BiasGelu measured slower than Add and Gelu (docs/performance.md).
        return self.graph.op("Gelu", self.dense(value, name), domain=MICROSOFT)


class _Unfused(_Encoder):
    """Standard operators of opset 17 only."""

    def __init__(self, graph: GraphWriter, weights: BertWeights, shape: BertShape) -> None:
        super().__init__(graph, weights, shape)
        mask = graph.cast("attention_mask")
        bias = graph.op("Mul", graph.op("Sub", graph.scalar(1.0), mask), graph.scalar(_MASK_BIAS))
        self._bias = graph.unsqueeze(graph.unsqueeze(bias, 1), 1)

    def broadcast(self, positions: str, words: str) -> str:
        # QNN's HTP normalises the second row of a batch of 2 wrongly after an implicit broadcast
        # (onnxruntime-qnn 2.7.0, emulated). With fixed shapes the Expand is a constant.
        return self.graph.op("Expand", positions, self.graph.op("Shape", words))

    def attention(self, value: str, name: str) -> str:
        graph, head = self.graph, self.shape.hidden // self.shape.heads
        packed = graph.linear(value, f"{name}.qkv", *self.packed_qkv(name))
        parts = graph.ops("Split", packed, graph.ints(*[self.shape.hidden] * 3), outputs=3, axis=2)
        query, key, val = (graph.op("Reshape", part, graph.ints(0, 0, self.shape.heads, head)) for part in parts)
        scores = graph.op(
            "MatMul", graph.op("Transpose", query, perm=[0, 2, 1, 3]), graph.op("Transpose", key, perm=[0, 2, 3, 1])
        )
        scaled = graph.op("Mul", scores, graph.scalar(head**-0.5))
        probabilities = graph.op("Softmax", graph.op("Add", scaled, self._bias), axis=-1)
        context = graph.op("MatMul", probabilities, graph.op("Transpose", val, perm=[0, 2, 1, 3]))
        merged = graph.op("Transpose", context, perm=[0, 2, 1, 3])
        return graph.op("Reshape", merged, graph.ints(0, 0, self.shape.hidden))

    def gelu(self, value: str, name: str) -> str:
        graph, linear = self.graph, self.dense(value, name)
        # The Gelu operator of opset 20 has no DirectML kernel.
        error = graph.op("Erf", graph.op("Mul", linear, graph.scalar(0.5**0.5)))
        half = graph.op("Mul", linear, graph.scalar(0.5))
        return graph.op("Mul", half, graph.op("Add", error, graph.scalar(1.0)))
