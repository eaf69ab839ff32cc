"""The graphs built from safetensors compute what BERT computes."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from safetensors.numpy import load_file, save_file

from embedmill.base.config import TextTable
from embedmill.base.errors import ModelError
from embedmill.model.bert import open_weights
from embedmill.model.bundle import Flavour
from tests.model import reference
from tests.model.reference import Array
from tests.support.running import FLAVOURS, TEXTS, TOLERANCE, build, graph_path, run
from tests.support.tiny_model import HIDDEN, bert_config, write_json, write_tiny_model

POOLINGS = (["mean"], ["cls"], ["last"], ["max"], ["mean_sqrt_len"], ["cls", "mean"])
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "torch.nn.modules.activation.Tanh": lambda x: np.tanh(x),
    "torch.nn.modules.activation.ReLU": lambda x: np.maximum(x, 0),
    "torch.nn.modules.activation.Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "torch.nn.modules.linear.Identity": lambda x: x,
}

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS)


@every_flavour
@pytest.mark.parametrize("pooling", POOLINGS, ids="+".join)
def test_a_padded_batch_gives_what_numpy_computes_text_by_text(
    tmp_path: Path, flavour: Flavour, pooling: list[str]
) -> None:
    model = write_tiny_model(tmp_path / "model", pooling=pooling, normalize=False)
    found = run(build(model, tmp_path / "bundle"), flavour)
    expected = reference.vectors(model, TEXTS, pooling=pooling, normalize=False)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[flavour])


@every_flavour
def test_vectors_have_length_1_where_the_model_normalises(tiny_model: Path, tmp_path: Path, flavour: Flavour) -> None:
    found = run(build(tiny_model, tmp_path / "bundle"), flavour)
    expected = reference.vectors(tiny_model, TEXTS, pooling=["mean"], normalize=True)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[flavour])


@every_flavour
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda name: name.rsplit(".", 1)[-1])
def test_a_dense_layer_follows_the_pooling(tmp_path: Path, flavour: Flavour, activation: str) -> None:
    model = write_tiny_model(tmp_path / "model", dense=12)
    write_json(model / "2_Dense" / "config.json", {"activation_function": activation})
    linear = {name: array.astype(np.float64) for name, array in load_file(model / "2_Dense/model.safetensors").items()}

    def dense(vector: Array) -> Array:
        return ACTIVATIONS[activation](linear["linear.weight"] @ vector + linear["linear.bias"])

    bundle = build(model, tmp_path / "bundle")
    expected = reference.vectors(model, TEXTS, pooling=["mean"], normalize=True, head=dense)
    assert bundle.card.dim == 12
    np.testing.assert_allclose(run(bundle, flavour), expected, atol=TOLERANCE[flavour])


@every_flavour
def test_a_dense_layer_needs_no_bias(tmp_path: Path, flavour: Flavour) -> None:
    model = write_tiny_model(tmp_path / "model", dense=12, normalize=False)
    weight = load_file(model / "2_Dense/model.safetensors")["linear.weight"]
    save_file({"linear.weight": weight}, model / "2_Dense/model.safetensors")
    expected = reference.vectors(
        model, TEXTS, pooling=["mean"], normalize=False, head=lambda vector: np.tanh(weight @ vector)
    )
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), flavour), expected, atol=TOLERANCE[flavour])


@every_flavour
def test_the_first_dimensions_are_kept_and_then_normalised(tiny_model: Path, tmp_path: Path, flavour: Flavour) -> None:
    bundle = build(tiny_model, tmp_path / "bundle", dim=8)
    expected = reference.vectors(tiny_model, TEXTS, pooling=["mean"], normalize=True, head=lambda vector: vector[:8])
    assert bundle.card.dim == 8
    np.testing.assert_allclose(run(bundle, flavour), expected, atol=TOLERANCE[flavour])


def test_more_dimensions_than_the_model_has_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--dim 33 is more than the 32 dimensions"):
        build(tiny_model, tmp_path / "bundle", dim=33)


@every_flavour
@pytest.mark.parametrize("pooling", POOLINGS, ids="+".join)
def test_padding_does_not_change_a_vector(tmp_path: Path, flavour: Flavour, pooling: list[str]) -> None:
    bundle = build(write_tiny_model(tmp_path / "model", pooling=pooling), tmp_path / "bundle")
    alone = np.concatenate([run(bundle, flavour, [text]) for text in TEXTS])
    padded = run(bundle, flavour, TEXTS, sequence=40)
    np.testing.assert_allclose(padded, alone, atol=TOLERANCE[flavour] / 10)


@every_flavour
def test_the_inputs_are_int64_ids_and_mask_and_one_float32_matrix_leaves(
    tiny_model: Path, tmp_path: Path, flavour: Flavour
) -> None:
    graph = onnx.load_model(graph_path(build(tiny_model, tmp_path / "bundle"), flavour), load_external_data=False).graph
    inputs = {value.name: (value.type.tensor_type.elem_type, _shape(value)) for value in graph.input}
    outputs = [(value.type.tensor_type.elem_type, _shape(value)) for value in graph.output]
    assert inputs == {
        "input_ids": (TensorProto.INT64, ["batch", "sequence"]),
        "attention_mask": (TensorProto.INT64, ["batch", "sequence"]),
    }
    assert outputs == [(TensorProto.FLOAT, ["batch", HIDDEN])]


@pytest.mark.parametrize("flavour", ["unfused", "unfused-fp16"])
def test_an_unfused_graph_has_standard_operators_only(tiny_model: Path, tmp_path: Path, flavour: Flavour) -> None:
    model = onnx.load_model(graph_path(build(tiny_model, tmp_path / "bundle"), flavour))
    assert {node.domain for node in model.graph.node} == {""}
    assert {opset.domain for opset in model.opset_import} == {""}
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("flavour", ["fused", "fused-fp16"])
def test_a_fused_graph_uses_the_runtimes_attention(tiny_model: Path, tmp_path: Path, flavour: Flavour) -> None:
    model = onnx.load_model(graph_path(build(tiny_model, tmp_path / "bundle"), flavour), load_external_data=False)
    fused = {node.op_type for node in model.graph.node if node.domain == "com.microsoft"}
    assert fused == {"Attention", "Gelu"}


@pytest.mark.parametrize("flavour", ["fused-fp16", "unfused-fp16"])
def test_a_graph_of_half_precision_holds_halves_up_to_its_pooling(
    tiny_model: Path, tmp_path: Path, flavour: Flavour
) -> None:
    model = onnx.load_model(graph_path(build(tiny_model, tmp_path / "bundle"), flavour))
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 0}
    assert set(kinds.values()) == {TensorProto.FLOAT16, TensorProto.INT64}
    last = next(node for node in reversed(model.graph.node) if node.op_type == "LayerNormalization")
    [cast] = [node for node in model.graph.node if last.output[0] in node.input]
    assert (cast.op_type, cast.attribute[0].i) == ("Cast", TensorProto.FLOAT)


def test_the_card_says_the_opset_of_each_graph(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    for flavour, graph in bundle.card.graphs.items():
        model = onnx.load_model(graph_path(bundle, flavour), load_external_data=False)
        assert [entry.version for entry in model.opset_import if not entry.domain] == [graph.opset]
        assert bundle.model(TextTable()).graphs[flavour].opset == graph.opset


def test_the_graphs_of_a_precision_share_one_weight_file(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    for flavour in FLAVOURS:
        graph = onnx.load_model(graph_path(bundle, flavour), load_external_data=False).graph
        places = {pair.value for tensor in graph.initializer for pair in tensor.external_data if pair.key == "location"}
        assert places == {"weights-fp16.bin" if flavour.endswith("fp16") else "weights.bin"}
    assert sorted(path.name for path in bundle.folder.glob("*.bin")) == ["weights-fp16.bin", "weights.bin"]


@every_flavour
def test_tensors_named_below_bert_are_found(tiny_model: Path, tmp_path: Path, flavour: Flavour) -> None:
    prefixed = write_tiny_model(tmp_path / "model")
    weights = load_file(tiny_model / "model.safetensors")
    save_file({f"bert.{name}": array for name, array in weights.items()}, prefixed / "model.safetensors")
    plain = run(build(tiny_model, tmp_path / "plain"), flavour)
    np.testing.assert_array_equal(run(build(prefixed, tmp_path / "prefixed"), flavour), plain)


@every_flavour
@pytest.mark.parametrize("precision", [np.float16, ml_dtypes.bfloat16], ids=lambda precision: precision.__name__)
def test_weights_of_half_precision_become_float32(tmp_path: Path, flavour: Flavour, precision: type) -> None:
    model = write_tiny_model(tmp_path / "model")
    halves: dict[str, np.ndarray[Any, Any]] = {
        name: array.astype(precision) for name, array in load_file(model / "model.safetensors").items()
    }
    save_file(halves, model / "model.safetensors")
    expected = reference.vectors(model, TEXTS, pooling=["mean"], normalize=True)
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), flavour), expected, atol=TOLERANCE[flavour])


@pytest.mark.parametrize(
    ("key", "value"),
    [("model_type", "roberta"), ("hidden_act", "relu"), ("position_embedding_type", "relative_key")],
)
def test_what_is_no_plain_bert_needs_an_export(tmp_path: Path, key: str, value: str) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "config.json", {**bert_config(), key: value})
    with pytest.raises(ModelError, match=rf"model: only BERT .*{value}.* export it to ONNX"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "num_hidden_layers"])
def test_a_size_that_config_json_lacks_is_named(tmp_path: Path, key: str) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "config.json", {name: value for name, value in bert_config().items() if name != key})
    with pytest.raises(ModelError, match=rf"config\.json.*{key}"):
        build(model, tmp_path / "bundle")


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, model / "model.safetensors")
    with pytest.raises(ModelError, match=r"no tensor 'encoder\.layer\.1\.output\.dense\.bias'"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("kept", [0, 4, 1000], ids=["empty", "four bytes", "half a header"])
def test_a_damaged_safetensors_file_is_named(tmp_path: Path, kept: int) -> None:
    path = write_tiny_model(tmp_path / "model") / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors is not a readable safetensors file"):
        build(path.parent, tmp_path / "bundle")


def test_a_full_disk_is_not_called_a_damaged_model(tiny_model: Path) -> None:
    with (
        pytest.raises(OSError, match="No space left"),
        open_weights(tiny_model / "model.safetensors"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def _shape(value: Any) -> list[str | int]:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
