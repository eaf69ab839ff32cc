"""Copy an existing ONNX export with the head appended."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
from msgspec import Struct
from onnx import TensorProto, helper

from embedmill.base.errors import ModelError
from embedmill.model.graph import GraphWriter
from embedmill.model.head import OUTPUT, DenseWeights, append_head
from embedmill.model.inspection import MOST_BYTES, load_graph, weight_files
from embedmill.model.interface import fit_inputs, token_embeddings
from embedmill.model.recipe import Recipe
from embedmill.model.rows import compute_by_row, scales_by_batch

# Operators of the head have their inputs in this form since (Slice: 10), and the runtime's since 7.
_LEAST_OPSET = 10
# Newer versions add records that the runtime does not read, but refuses.
_NEWEST_IR = 10


class ExportCopy(Struct, frozen=True, kw_only=True):
    """Vector width and opset of a copy, and source files."""

    dim: int
    opset: int
    sources: list[Path]


def copy_export(
    source: Path, target: Path, *, recipe: Recipe, dense: list[DenseWeights], dim: int | None, config: dict[str, Any]
) -> ExportCopy:
    """Copy an export to `target` with the head appended.

    `config` is the model's `config.json`. Raises ModelError as `load_graph` does, and for missing token embeddings,
    unknown inputs, fixed shapes, and old operators.
    """
    model = load_graph(source)
    weights = [source.parent / location for location in weight_files(model)]
    for file in weights:
        shutil.copyfile(file, target.parent / file.name)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < _LEAST_OPSET:
        raise ModelError(f"{source} uses operators of opset {opset}; export it again with opset 14 or newer")
    model.ir_version = min(model.ir_version, _NEWEST_IR)
    graph = GraphWriter(opset=opset, prefix="embedmill_")
    fit_inputs(model, source, config)
    tokens, hidden = token_embeddings(model, graph, source, config)
    width = append_head(graph, tokens, hidden=hidden, recipe=recipe, dense=dense, dim=dim)
    _splice(model, graph, width)
    if scales_by_batch(model):
        compute_by_row(model, opset=opset, dim=width)
    if model.ByteSize() > MOST_BYTES:
        raise ModelError(f"{source} is almost 2 GiB, so pooling has no room in it; export it with external data")
    onnx.save_model(model, target)
    return ExportCopy(dim=width, opset=opset, sources=[source, *weights])


def _splice(model: onnx.ModelProto, graph: GraphWriter, width: int) -> None:
    """Append the head; make the embedding the only output."""
    model.graph.node.extend(graph.nodes)
    model.graph.initializer.extend(graph.initializers)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", width]))
