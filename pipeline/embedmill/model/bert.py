"""A BERT encoder from safetensors to ONNX, without torch, in two flavours that share one weight file.

`fused` uses ONNX Runtime's own operators (CPU, CUDA, DirectML); `unfused` is made of standard
operators only (QNN, WebGPU, OpenVINO). Each computes in float32, or (`half`) in float16 up to its token
embeddings, which are float32 again for pooling. Both take `input_ids` and `attention_mask`, int64
[batch, sequence]; token types are all zero for single texts, so their row 0 is folded into the
position embeddings.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from onnx import TensorProto
from safetensors import SafetensorError, safe_open

from embedmill.base.errors import ModelError
from embedmill.model.graph import MICROSOFT, GraphWriter

INPUTS = ("input_ids", "attention_mask")
Floats = npt.NDArray[np.float32]

# exp() of it is 0 in float32 and float16 alike, and unlike the smallest float it survives a cast to
# float16 and 8-bit quantisation (Olive, pull request 1597).
_MASKED = -1e4


class BertShape(Struct, frozen=True, kw_only=True):
    """The sizes that a BERT `config.json` states."""

    hidden: int
    heads: int
    layers: int
    positions: int
    epsilon: float


class BertWeights:
    """The tensors of a safetensors file by their names inside BERT, read one at a time as float32."""

    def __init__(self, file: Any, path: Path) -> None:
        self._file = file
        self._path = path
        keys = set(file.keys())
        self._prefix = "bert." if "bert.embeddings.word_embeddings.weight" in keys else ""

    def __getitem__(self, name: str) -> Floats:
        try:
            return np.asarray(self._file.get_tensor(self._prefix + name), np.float32)
        except SafetensorError as error:
            raise ModelError(f"{self._path} has no tensor {name!r}; it is not a BERT encoder") from error

    def words(self, shape: BertShape) -> Floats:
        """The word embeddings [vocabulary, hidden]. Raises ModelError if they are not as wide as `shape` says."""
        table = self["embeddings.word_embeddings.weight"]
        if table.shape[1] != shape.hidden:
            raise ModelError(
                f"{self._path} has hidden size {table.shape[1]}, but config.json says {shape.hidden}; fetch it again"
            )
        return table

    def kernel(self, name: str) -> tuple[Floats, Floats]:
        """A linear layer as weight [in, out] and bias [out] (torch stores [out, in])."""
        return np.ascontiguousarray(self[f"{name}.weight"].T), self[f"{name}.bias"]


@contextmanager
def open_weights(path: Path) -> Iterator[BertWeights]:
    """The weights of a safetensors file. Raises ModelError if it is missing or damaged."""
    try:
        opened = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}); fetch the model again") from error
    with opened as file:
        yield BertWeights(file, path)


def read_shape(config: dict[str, Any], folder: Path) -> BertShape:
    """The sizes out of `config.json`. Raises ModelError for anything that is not a plain BERT encoder."""
    kind = config.get("model_type")
    activation = config.get("hidden_act", "gelu")
    positions = config.get("position_embedding_type", "absolute")
    if (kind, activation, positions) != ("bert", "gelu", "absolute"):
        raise ModelError(
            f"{folder}: only BERT encoders (gelu, absolute positions) are built from safetensors, this is"
            f" {kind!r} ({activation}, {positions}); export it to ONNX and add the folder with its onnx/model.onnx"
        )
    try:
        shape = BertShape(
            hidden=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            layers=int(config["num_hidden_layers"]),
            positions=int(config["max_position_embeddings"]),
            epsilon=float(config.get("layer_norm_eps", 1e-12)),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f"{folder / 'config.json'}: {error} is missing or no number") from error
    if min(shape.hidden, shape.heads, shape.layers) < 1 or shape.hidden % shape.heads:
        raise ModelError(
            f"{folder / 'config.json'}: hidden_size {shape.hidden} cannot be divided among"
            f" {shape.heads} num_attention_heads; mend it or fetch the model again"
        )
    return shape


def append_bert(graph: GraphWriter, weights: BertWeights, shape: BertShape, *, fused: bool, half: bool = False) -> str:
    """Add the encoder; the name of its token embeddings, float32 [batch, sequence, hidden]."""
    graph.floats = np.float16 if half else np.float32
    block = _Fused(graph, weights, shape) if fused else _Unfused(graph, weights, shape)
    value = block.embeddings()
    for layer in range(shape.layers):
        name = f"encoder.layer.{layer}"
        attended = block.dense(block.attention(value, f"{name}.attention.self"), f"{name}.attention.output.dense")
        value = block.norm(graph.op("Add", attended, value), f"{name}.attention.output.LayerNorm")
        inner = block.gelu(value, f"{name}.intermediate.dense")
        value = block.norm(
            graph.op("Add", block.dense(inner, f"{name}.output.dense"), value), f"{name}.output.LayerNorm"
        )
    graph.floats = np.float32
    return graph.cast(value) if half else value


class _Encoder:
    """What both flavours share."""

    def __init__(self, graph: GraphWriter, weights: BertWeights, shape: BertShape) -> None:
        self.graph = graph
        self.weights = weights
        self.shape = shape

    def embeddings(self) -> str:
        """Word plus position embeddings, normalised."""
        graph, weights = self.graph, self.weights
        positions = weights["embeddings.position_embeddings.weight"]
        positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
        words = graph.weight("embeddings.words", weights.words(self.shape))
        sequence = graph.op("Gather", graph.op("Shape", "input_ids"), graph.ints(1), axis=0)
        here = graph.op(
            "Slice", graph.weight("embeddings.positions", positions), graph.ints(0), sequence, graph.ints(0)
        )
        looked_up = graph.op("Gather", words, "input_ids", axis=0)
        return self.norm(graph.op("Add", looked_up, self.spread(here, looked_up)), "embeddings.LayerNorm")

    def spread(self, positions: str, words: str) -> str:
        """Position embeddings [sequence, hidden] as they are added to `words` [batch, sequence, hidden]."""
        return positions

    def norm(self, value: str, name: str) -> str:
        """LayerNormalization. The Add before it stays a node of its own: on CPU the fused
        SkipLayerNormalization measured slower than the two (docs/performance.md)."""
        scale = self.graph.weight(f"{name}.weight", self.weights[f"{name}.weight"])
        bias = self.graph.weight(f"{name}.bias", self.weights[f"{name}.bias"])
        return self.graph.op("LayerNormalization", value, scale, bias, axis=-1, epsilon=self.shape.epsilon)

    def dense(self, value: str, name: str) -> str:
        """A linear layer."""
        return self.graph.linear(value, name, *self.weights.kernel(name))

    def packed(self, name: str) -> tuple[Floats, Floats]:
        """Query, key and value as one linear layer: weight [hidden, 3 hidden], bias [3 hidden]."""
        kernels = [self.weights.kernel(f"{name}.{part}") for part in ("query", "key", "value")]
        return np.concatenate([k[0] for k in kernels], axis=1), np.concatenate([k[1] for k in kernels])


class _Fused(_Encoder):
    """ONNX Runtime's Attention and Gelu. BiasGelu measured slower than an Add and Gelu (docs/performance.md)."""

    def __init__(self, graph: GraphWriter, weights: BertWeights, shape: BertShape) -> None:
        super().__init__(graph, weights, shape)
        lengths = graph.reduce("ReduceSum", "attention_mask", 1, keepdims=False)
        self._lengths = graph.op("Cast", lengths, to=TensorProto.INT32)

    def attention(self, value: str, name: str) -> str:
        weight, bias = self.packed(name)
        packed = (self.graph.weight(f"{name}.qkv.weight", weight), self.graph.weight(f"{name}.qkv.bias", bias))
        return self.graph.op("Attention", value, *packed, self._lengths, domain=MICROSOFT, num_heads=self.shape.heads)

    def gelu(self, value: str, name: str) -> str:
        return self.graph.op("Gelu", self.dense(value, name), domain=MICROSOFT)


class _Unfused(_Encoder):
    """Standard operators of opset 17 only; Gelu is spelt with Erf (the Gelu operator of opset 20 has
    no DirectML kernel)."""

    def __init__(self, graph: GraphWriter, weights: BertWeights, shape: BertShape) -> None:
        super().__init__(graph, weights, shape)
        mask = graph.cast("attention_mask")
        hidden = graph.op("Mul", graph.op("Sub", graph.scalar(1.0), mask), graph.scalar(_MASKED))
        self._bias = graph.unsqueeze(graph.unsqueeze(hidden, 1), 1)

    def spread(self, positions: str, words: str) -> str:
        """One copy per row: QNN's HTP normalises the second row of a batch of 2 wrongly where they are
        broadcast (onnxruntime-qnn 2.7.0, emulated). With fixed shapes this is a constant."""
        return self.graph.op("Expand", positions, self.graph.op("Shape", words))

    def attention(self, value: str, name: str) -> str:
        graph, head = self.graph, self.shape.hidden // self.shape.heads
        packed = graph.linear(value, f"{name}.qkv", *self.packed(name))
        parts = graph.ops("Split", packed, graph.ints(*[self.shape.hidden] * 3), outputs=3, axis=2)
        query, key, val = (graph.op("Reshape", part, graph.ints(0, 0, self.shape.heads, head)) for part in parts)
        scores = graph.op(
            "MatMul",
            graph.op("Transpose", query, perm=[0, 2, 1, 3]),
            graph.op("Transpose", key, perm=[0, 2, 3, 1]),
        )
        scaled = graph.op("Mul", scores, graph.scalar(head**-0.5))
        probabilities = graph.op("Softmax", graph.op("Add", scaled, self._bias), axis=-1)
        context = graph.op("MatMul", probabilities, graph.op("Transpose", val, perm=[0, 2, 1, 3]))
        merged = graph.op("Transpose", context, perm=[0, 2, 1, 3])
        return graph.op("Reshape", merged, graph.ints(0, 0, self.shape.hidden))

    def gelu(self, value: str, name: str) -> str:
        graph = self.graph
        linear = self.dense(value, name)
        error = graph.op("Erf", graph.op("Mul", linear, graph.scalar(0.5**0.5)))
        half = graph.op("Mul", linear, graph.scalar(0.5))
        return graph.op("Mul", half, graph.op("Add", error, graph.scalar(1.0)))
