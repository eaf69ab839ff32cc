"""Copy an existing ONNX export with the head appended."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from msgspec import Struct
from onnx import TensorProto, helper

from embedmill.base.errors import ModelError
from embedmill.model.bert import INPUTS
from embedmill.model.graph import GraphWriter
from embedmill.model.head import OUTPUT, DenseWeights, append_head
from embedmill.model.inspection import load_graph, weight_files
from embedmill.model.recipe import Recipe

LOCATIONS = ("model.onnx", "onnx/model.onnx")
_TOKEN_OUTPUTS = ("last_hidden_state", "token_embeddings")


def find_export(folder: Path) -> Path | None:
    """Return the ONNX file of a model folder, if any."""
    return next((folder / location for location in LOCATIONS if (folder / location).is_file()), None)


class ExportCopy(Struct, frozen=True, kw_only=True):
    """Vector width and opset of a copy, and source files."""

    dim: int
    opset: int
    sources: list[Path]


def copy_export(
    source: Path, target: Path, *, recipe: Recipe, dense: list[DenseWeights], dim: int | None
) -> ExportCopy:
    """Copy an export to `target` with the head appended.

    Raises ModelError as `load_graph` does, and for missing token embeddings, unknown inputs or fixed shapes.
    """
    model = load_graph(source)
    weights = [source.parent / location for location in weight_files(model)]
    for file in weights:
        shutil.copyfile(file, target.parent / file.name)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    graph = GraphWriter(opset=opset, prefix="embedmill_")
    _fit_inputs(model, graph, source)
    tokens, hidden = _token_embeddings(model, graph, source)
    width = append_head(graph, tokens, hidden=hidden, recipe=recipe, dense=dense, dim=dim)
    _splice(model, graph, width)
    onnx.save_model(model, target)
    return ExportCopy(dim=width, opset=opset, sources=[source, *weights])


def _fit_inputs(model: onnx.ModelProto, graph: GraphWriter, source: Path) -> None:
    """Replace token types by zeros; raise ModelError for unknown inputs."""
    inputs = {value.name: value for value in model.graph.input}
    unknown = inputs.keys() - {*INPUTS, "token_type_ids"}
    if unknown or not inputs.keys() >= set(INPUTS):
        raise ModelError(
            f"{source} takes the inputs {sorted(inputs)}; an encoder with input_ids, attention_mask and, at"
            " most, token_type_ids is expected"
        )
    _name_dimensions(model, source)
    if "token_type_ids" in inputs:
        model.graph.input.remove(inputs["token_type_ids"])
        shape = helper.make_node("Shape", ["input_ids"], ["embedmill_shape"])
        zero = helper.make_tensor("value", TensorProto.INT64, [1], [0])
        zeros = helper.make_node("ConstantOfShape", ["embedmill_shape"], ["token_type_ids"], value=zero)
        # ONNX requires topological order.
        model.graph.node.insert(0, zeros)
        model.graph.node.insert(0, shape)


def _name_dimensions(model: onnx.ModelProto, source: Path) -> None:
    # A session fixes free dimensions by the names `batch` and `sequence`.
    names: dict[str, str] = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        if kind.elem_type != TensorProto.INT64 or len(kind.shape.dim) != 2:
            raise ModelError(f"{source}: its input {value.name} is not int64 [batch, sequence]; export it again")
        for dimension, name in zip(kind.shape.dim, ("batch", "sequence"), strict=True):
            if not dimension.dim_param:
                raise ModelError(f"{source} has a fixed {name} size; export it with dynamic axes")
            names[dimension.dim_param] = name
    for value in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param in names:
                dimension.dim_param = names[dimension.dim_param]


def _token_embeddings(model: onnx.ModelProto, graph: GraphWriter, source: Path) -> tuple[str, int]:
    """Return the output float32 [batch, sequence, hidden] and `hidden`."""
    outputs = {value.name: value.type.tensor_type for value in model.graph.output}
    name = next((name for name in _TOKEN_OUTPUTS if name in outputs), None)
    if name is None or len(outputs[name].shape.dim) != 3 or not outputs[name].shape.dim[2].dim_value:
        raise ModelError(
            f"{source} has the outputs {sorted(outputs)}; one of {', '.join(_TOKEN_OUTPUTS)} with shape"
            " [batch, sequence, hidden] is needed"
        )
    tokens = name if outputs[name].elem_type == TensorProto.FLOAT else graph.cast(name)
    return tokens, outputs[name].shape.dim[2].dim_value


def _splice(model: onnx.ModelProto, graph: GraphWriter, width: int) -> None:
    """Append the head; make the embedding the only output."""
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.initializers)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", width]))
