"""Fit an export's inputs and find the token embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from embedmill.base.errors import ModelError
from embedmill.model.bert import INPUTS, KINDS
from embedmill.model.graph import GraphWriter
from embedmill.model.recipe import first_position
from embedmill.model.rows import rename_value

_AXES = ("batch", "sequence")
# Names that other exporters give to the same inputs.
_ALIASES = {"input_mask": "attention_mask", "segment_ids": "token_type_ids"}
_FILLED = ("token_type_ids", "position_ids")
_INTEGERS = (TensorProto.INT64, TensorProto.INT32)
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")
# Outputs of one vector per text, whatever their shape claims.
_POOLED = ("sentence_embedding", "pooler_output", "text_embeds", "sentence_embeds")
# Outputs of a head that predicts words or labels.
_PREDICTED = ("logits", "prediction_logits", "prediction_scores")
_WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")
_CAUSES = {
    "past_key_values": "it is a decoder with a cache; export it without one",
    "decoder_": "it is an encoder with its decoder; export the encoder alone",
    "pixel_values": "it embeds images",
    "input_features": "it embeds sound",
    "input_values": "it embeds sound",
    "inputs_embeds": "it takes embeddings in place of tokens",
    "bbox": "it takes the places of words on a page",
    "position_ids": "the first position of this kind of model is not known here; export it without position_ids",
}


def fit_inputs(model: onnx.ModelProto, source: Path, config: Mapping[str, Any]) -> None:
    """Leave `input_ids` and `attention_mask`, int64 [batch, sequence].

    Token types become zeros, position ids their numbers, other number types are cast. Raises ModelError
    for other inputs and fixed shapes.
    """
    _drop_defaults(model)
    inputs = {_plain(value.name): value for value in model.graph.input}
    filled = _FILLED if config.get("model_type") in KINDS else _FILLED[:1]
    unknown = sorted(inputs.keys() - {*INPUTS, *filled})
    if unknown or not inputs.keys() >= set(INPUTS):
        raise ModelError(
            f"{source} takes the inputs {sorted(inputs)}; an encoder with input_ids, attention_mask and, at"
            f" most, token_type_ids is expected{_cause(unknown, inputs)}"
        )
    _name_dimensions(model, source)
    feeds = [node for name, value in inputs.items() for node in _feed(model, name, value, source)]
    if "token_type_ids" in inputs:
        feeds = _zeros("token_type_ids") + feeds
    if "position_ids" in inputs:
        feeds = _numbers("position_ids", first_position(dict(config), source.parent), model) + feeds
    for name in filled:
        if name in inputs:
            model.graph.input.remove(inputs[name])
    # ONNX requires topological order.
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*feeds, *rest])


def token_embeddings(
    model: onnx.ModelProto, graph: GraphWriter, source: Path, config: Mapping[str, Any]
) -> tuple[str, int]:
    """Return the output float32 [batch, sequence, hidden] and `hidden`.

    An output of a usual name, else the only one of floats with three dimensions. Raises ModelError.
    """
    outputs = {value.name: value.type.tensor_type for value in model.graph.output}
    named = [name for usual in _TOKEN_OUTPUTS for name in outputs if _plain(name) == usual]
    if not named:
        others = (*_POOLED, *_PREDICTED)
        named = [name for name, kind in outputs.items() if len(kind.shape.dim) == 3 and _plain(name) not in others]
        named = named if len(named) == 1 else []
    if not named or (outputs[named[0]].HasField("shape") and len(outputs[named[0]].shape.dim) != 3):
        raise ModelError(
            f"{source} has the outputs {sorted(outputs)}; one of {', '.join(_TOKEN_OUTPUTS)} with shape"
            " [batch, sequence, hidden] is needed (a pooled vector cannot be pooled again), so export the encoder"
            " without its pooling or task head"
        )
    name, kind = named[0], outputs[named[0]]
    if kind.elem_type not in _FLOATS:
        raise ModelError(f"{source}: its output {name} holds no floats; export the encoder without a task head")
    stated = kind.shape.dim[2].dim_value if kind.shape.dim else 0
    configured = next((config[key] for key in _WIDTHS if isinstance(config.get(key), int)), 0)
    if stated and configured and stated != configured and _plain(name) not in _TOKEN_OUTPUTS:
        raise ModelError(
            f"{source}: its output {name} has {stated} numbers per token, and the hidden size is {configured}; export"
            " the encoder without a task head"
        )
    width = stated or configured
    if width < 1:
        raise ModelError(f"{source} does not state the width of its output {name}; add hidden_size to its config.json")
    return name if kind.elem_type == TensorProto.FLOAT else graph.cast(name), width


def _plain(name: str) -> str:
    # tf2onnx ends names of values with the number of the output.
    plain = name.removesuffix(":0")
    return _ALIASES.get(plain, plain)


def _cause(unknown: list[str], inputs: Mapping[str, Any]) -> str:
    if not unknown:
        missing = [name for name in INPUTS if name not in inputs]
        return f"; {', '.join(missing)} is missing, and without it padding would change the vectors" * bool(missing)
    return next((f": {what}" for start, what in _CAUSES.items() if unknown[-1].startswith(start)), "")


def _drop_defaults(model: onnx.ModelProto) -> None:
    """Make weights that are listed among the inputs constants."""
    # Since version 4 of the format weights need not be inputs.
    model.ir_version = max(model.ir_version, 4)
    stored = {tensor.name for tensor in model.graph.initializer}
    stored |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    kept = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def _name_dimensions(model: onnx.ModelProto, source: Path) -> None:
    # A session fixes free dimensions by the names `batch` and `sequence`.
    names: dict[str, str] = {}
    for value in model.graph.input:
        shape = value.type.tensor_type.shape
        if not value.type.tensor_type.HasField("shape"):
            shape.dim.extend([onnx.TensorShapeProto.Dimension() for _ in _AXES])
        if len(shape.dim) != len(_AXES):
            raise ModelError(
                f"{source}: its input {value.name} is not int64 [batch, sequence], but has {len(shape.dim)} dimensions;"
                " export the encoder with the two"
            )
        for dimension, name in zip(shape.dim, _AXES, strict=True):
            # Some exporters write -1 for a free size.
            if dimension.dim_value > 0:
                raise ModelError(
                    f"{source} has a fixed {name} size; export it with dynamic axes ({dimension.dim_value} is the only"
                    f" {name} size that its input {value.name} takes)"
                )
            names[dimension.dim_param] = name
            dimension.dim_param = name
    names.pop("", None)
    for value in (*model.graph.value_info, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]


def _feed(model: onnx.ModelProto, name: str, value: onnx.ValueInfoProto, source: Path) -> list[onnx.NodeProto]:
    """Make an input int64 under the usual name; return nodes."""
    kind = value.type.tensor_type.elem_type
    allowed = (*_INTEGERS, *_FLOATS, TensorProto.BOOL) if name == "attention_mask" else _INTEGERS
    if kind not in allowed:
        raise ModelError(
            f"{source}: its input {value.name} is not int64 [batch, sequence], but {TensorProto.DataType.Name(kind)};"
            " export the encoder with token ids and mask as int64"
        )
    if (value.name, kind) == (name, TensorProto.INT64):
        return []
    inner = f"embedmill_{name}"
    rename_value(model.graph, value.name, inner)
    value.name, value.type.tensor_type.elem_type = name, TensorProto.INT64
    return [helper.make_node("Cast", [name], [inner], to=kind)]


def _zeros(name: str) -> list[onnx.NodeProto]:
    """Make int64 zeros in the shape of `input_ids`."""
    zero = helper.make_tensor("value", TensorProto.INT64, [1], [0])
    return [
        helper.make_node("Shape", ["input_ids"], ["embedmill_shape"]),
        helper.make_node("ConstantOfShape", ["embedmill_shape"], [name], value=zero),
    ]


def _numbers(name: str, first: int, model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Number each row's tokens from `first`: int64 [batch, sequence]."""
    ones = helper.make_tensor("value", TensorProto.INT64, [1], [1])
    constants = {"embedmill_axis": 1, "embedmill_before": first - 1}
    model.graph.initializer.extend(
        helper.make_tensor(key, TensorProto.INT64, [1], [number]) for key, number in constants.items()
    )
    return [
        helper.make_node("Shape", ["input_ids"], ["embedmill_extent"]),
        helper.make_node("ConstantOfShape", ["embedmill_extent"], ["embedmill_ones"], value=ones),
        helper.make_node("CumSum", ["embedmill_ones", "embedmill_axis"], ["embedmill_counts"]),
        helper.make_node("Add", ["embedmill_counts", "embedmill_before"], [name]),
    ]
