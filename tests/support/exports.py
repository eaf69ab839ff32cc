"""Small ONNX exports with positions, as RoBERTa's kinds have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.tiny_model import HIDDEN, VOCABULARY, bert_config, write_json, write_tiny_model


def positioned_export(positions: int, *, first: int = 2) -> onnx.ModelProto:
    """A graph that adds a word's and a position's row; positions count from `first`, so it takes positions - first."""
    draw = np.random.default_rng(3)
    tensors: dict[str, np.ndarray[Any, Any]] = {
        "words": draw.normal(size=(len(VOCABULARY), HIDDEN)).astype(np.float32),
        "places": draw.normal(size=(positions, HIDDEN)).astype(np.float32),
        "axis": np.array(1, np.int64),
        "before": np.array(first - 1, np.int64),
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Shape", ["input_ids"], ["extent"]),
        helper.make_node("Expand", ["one", "extent"], ["ones"]),
        helper.make_node("CumSum", ["ones", "axis"], ["counts"]),
        helper.make_node("Add", ["counts", "before"], ["numbers"]),
        helper.make_node("Gather", ["places", "numbers"], ["placed"], axis=0),
        helper.make_node("Gather", ["words", "input_ids"], ["looked_up"], axis=0),
        helper.make_node("Add", ["looked_up", "placed"], ["last_hidden_state"]),
    ]
    shape: list[str | int] = ["batch_size", "sequence_length"]
    graph = helper.make_graph(
        nodes,
        "positioned",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, HIDDEN])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_positioned(
    folder: Path, positions: int, *, first: int = 2, config: dict[str, Any] | None = None, **options: Any
) -> Path:
    """A model folder with such an export; `config` changes what its config.json states."""
    write_tiny_model(folder, **options)
    stated = {"model_type": "unheard-of", "max_position_embeddings": positions, "pad_token_id": first - 1}
    write_json(folder / "config.json", bert_config() | stated | (config or {}))
    (folder / "model.safetensors").unlink()
    onnx.save_model(positioned_export(positions, first=first), folder / "model.onnx")
    return folder
