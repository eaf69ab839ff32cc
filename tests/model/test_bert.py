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
from tests.support.exports import positioned_export
from tests.support.running import FLAVOURS, TEXTS, TOLERANCE, build, graph_path, run
from tests.support.tiny_model import (
    HIDDEN,
    ROBERTA_KINDS,
    bert_config,
    write_json,
    write_tiny_model,
    write_tiny_roberta,
)

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


@pytest.mark.parametrize("prefix", ["roberta.", "model.", "0.auto_model.", "sentence_encoder.model."])
def test_tensors_are_found_below_any_prefix(tiny_model: Path, tmp_path: Path, prefix: str) -> None:
    """With heads, poolers and buffers beside them, as checkpoints have."""
    prefixed = write_tiny_model(tmp_path / "model")
    weights = load_file(tiny_model / "model.safetensors")
    extra: dict[str, np.ndarray[Any, Any]] = {
        "embeddings.position_ids": np.arange(64)[None],
        "pooler.dense.weight": np.zeros((32, 32), np.float32),
    }
    named: dict[str, np.ndarray[Any, Any]] = {f"{prefix}{name}": array for name, array in weights.items()}
    named |= {f"{prefix}{name}": array for name, array in extra.items()}
    save_file({**named, "cls.predictions.bias": np.zeros(3, np.float32)}, prefixed / "model.safetensors")
    plain = run(build(tiny_model, tmp_path / "plain"), "fused")
    np.testing.assert_array_equal(run(build(prefixed, tmp_path / "prefixed"), "fused"), plain)


def test_the_names_of_tensorflows_layer_norm_are_known(tiny_model: Path, tmp_path: Path) -> None:
    old = write_tiny_model(tmp_path / "model")
    weights = load_file(tiny_model / "model.safetensors")
    names = {name: name.replace("LayerNorm.weight", "LayerNorm.gamma") for name in weights}
    names = {name: old.replace("LayerNorm.bias", "LayerNorm.beta") for name, old in names.items()}
    save_file({names[name]: array for name, array in weights.items()}, old / "model.safetensors")
    plain = run(build(tiny_model, tmp_path / "plain"), "fused")
    np.testing.assert_array_equal(run(build(old, tmp_path / "old"), "fused"), plain)


def test_a_tied_tensor_is_found_under_the_name_that_was_kept(tiny_model: Path, tmp_path: Path) -> None:
    tied = write_tiny_model(tmp_path / "model")
    weights = load_file(tiny_model / "model.safetensors")
    words, decoder = "embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"
    weights[decoder] = weights.pop(words)
    save_file(weights, tied / "model.safetensors", metadata={"format": "pt", words: decoder})
    plain = run(build(tiny_model, tmp_path / "plain"), "fused")
    np.testing.assert_array_equal(run(build(tied, tmp_path / "tied"), "fused"), plain)


def test_several_encoders_in_one_file_are_refused(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    both = {f"{prefix}{name}": array for prefix in ("query.", "passage.") for name, array in weights.items()}
    save_file(both, model / "model.safetensors")
    with pytest.raises(ModelError, match=r"holds several encoders \(passage\., query\.\); save one of them alone"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int64])
def test_quantised_tensors_are_not_taken_for_floats(tmp_path: Path, kind: type) -> None:
    model = write_tiny_model(tmp_path / "model")
    name = "encoder.layer.1.output.dense.weight"
    weights = load_file(model / "model.safetensors")
    save_file({**weights, name: weights[name].astype(kind)}, model / "model.safetensors")
    with pytest.raises(ModelError, match=rf"its tensor '{name}' holds [IU]\d+, so its weights are quantised; add"):
        build(model, tmp_path / "bundle")


@every_flavour
@pytest.mark.parametrize("kind", ROBERTA_KINDS)
def test_robertas_positions_are_counted_after_the_padding_id(tmp_path: Path, flavour: Flavour, kind: str) -> None:
    model = write_tiny_roberta(tmp_path / "model", kind=kind, normalize=False)
    write_json(model / "config.json", bert_config() | {"model_type": kind, "pad_token_id": 5, "layer_norm_eps": 1e-12})
    # A text may hold the padding token.
    texts = [*TEXTS, [2, 5, 9, 30, 5, 5, 8, 3], [5]]
    found = run(build(model, tmp_path / "bundle"), flavour, texts)
    expected = reference.vectors(model, texts, pooling=["mean"], normalize=False)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE[flavour])


def test_an_export_beside_robertas_weights_is_what_it_was(tmp_path: Path) -> None:
    """Bundles were made of it before RoBERTa could be built: their outputs are to be continued."""
    model = write_tiny_roberta(tmp_path / "model")
    onnx.save_model(positioned_export(64, first=1), model / "model.onnx")
    assert set(build(model, tmp_path / "bundle").card.graphs) == {"fused", "unfused"}


@every_flavour
@pytest.mark.parametrize(
    "precision", [np.float16, ml_dtypes.bfloat16, np.float64], ids=lambda precision: precision.__name__
)
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
    [("model_type", "electra"), ("hidden_act", "relu"), ("position_embedding_type", "relative_key")],
)
def test_what_is_no_plain_bert_needs_an_export(tmp_path: Path, key: str, value: str) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "config.json", {**bert_config(), key: value})
    with pytest.raises(ModelError, match=rf"model: only BERT and RoBERTa .*{value}.* export it to ONNX"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "num_hidden_layers"])
def test_a_size_that_config_json_lacks_is_named(tmp_path: Path, key: str) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "config.json", {name: value for name, value in bert_config().items() if name != key})
    with pytest.raises(ModelError, match=rf"config\.json.*{key}"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 2.5),
        ("num_hidden_layers", "2"),
        ("hidden_size", 1e308),
        ("num_attention_heads", True),
        ("layer_norm_eps", 0),
        ("layer_norm_eps", -1e-12),
        ("layer_norm_eps", float("inf")),
        ("layer_norm_eps", float("nan")),
        ("layer_norm_eps", "1e-12"),
    ],
)
def test_a_number_that_no_encoder_has_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "config.json", {**bert_config(), key: value})
    with pytest.raises(ModelError, match=r"config\.json"):
        build(model, tmp_path / "bundle")


def test_a_decoder_is_told_as_one(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    write_json(model / "config.json", {**bert_config(), "is_decoder": True})
    with pytest.raises(ModelError, match=r"this is 'bert' \(gelu, absolute, a decoder\)"):
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
