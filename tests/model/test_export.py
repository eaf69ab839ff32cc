"""An ONNX export with the head appended gives the same vectors as NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedmill.base.errors import ModelError
from embedmill.model.bundle import check_files
from tests.model.reference import POOL
from tests.support.running import TEXTS, build, graph_path, run
from tests.support.systems import at
from tests.support.tiny_model import HIDDEN, VOCABULARY, bert_config, write_json, write_tiny_model

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
ALL_INPUTS = (IDS, MASK, TYPES)
TABLE = np.random.default_rng(5).normal(size=(len(VOCABULARY), HIDDEN)).astype(np.float32)


def export_model(
    *,
    inputs: tuple[str, ...] = ALL_INPUTS,
    shape: tuple[str | int, ...] = ("batch_size", "sequence_length"),
    output: str = "last_hidden_state",
    opset: int = 18,
    table: np.ndarray[Any, Any] = TABLE,
) -> onnx.ModelProto:
    """A graph that looks every token up in `table`, and adds its type, if it takes types."""
    kind = helper.np_dtype_to_tensor_dtype(table.dtype)
    nodes = [helper.make_node("Gather", ["table", IDS], [output if TYPES not in inputs else "words"], axis=0)]
    if TYPES in inputs:
        nodes += [
            helper.make_node("Cast", [TYPES], ["typed"], to=kind),
            helper.make_node("Unsqueeze", ["typed", "last"], ["column"]),
            helper.make_node("Add", ["words", "column"], [output]),
        ]
    graph = helper.make_graph(
        nodes,
        "export",
        [helper.make_tensor_value_info(name, TensorProto.INT64, list(shape)) for name in inputs],
        [helper.make_tensor_value_info(output, kind, [*shape, HIDDEN])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([2], np.int64), "last")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write_export(folder: Path, model: onnx.ModelProto, *, place: str = "onnx/model.onnx", **options: Any) -> Path:
    """A model folder with an export and no other weights."""
    write_tiny_model(folder, **options)
    write_json(folder / "config.json", bert_config() | {"model_type": "lookup"})
    (folder / "model.safetensors").unlink()
    (folder / place).parent.mkdir(exist_ok=True)
    onnx.save_model(model, folder / place)
    return folder


def keep_weights_in(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
    """The same model, with its table in the file `place` beside it."""
    table = model.graph.initializer[0]
    table.ClearField("raw_data")
    table.data_location = TensorProto.EXTERNAL
    for key, value in (("location", place), ("offset", "0"), ("length", str(TABLE.nbytes))):
        table.external_data.add(key=key, value=value)
    return model


def mean_of_table(*, normalize: bool = True, table: np.ndarray[Any, Any] = TABLE) -> np.ndarray[Any, Any]:
    """What the lookup model gives for TEXTS."""
    found = np.stack([table[text].astype(np.float64).mean(axis=0) for text in TEXTS])
    return found / np.linalg.norm(found, axis=1, keepdims=True) if normalize else found


@pytest.mark.parametrize("opset", [13, 18, 21])
@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx"])
def test_an_export_with_the_head_appended_equals_numpy(tmp_path: Path, opset: int, place: str) -> None:
    model = write_export(tmp_path / "model", export_model(opset=opset), place=place)
    bundle = build(model, tmp_path / "bundle")
    assert bundle.card.dim == HIDDEN
    assert {graph.opset for graph in bundle.card.graphs.values()} == {opset}
    np.testing.assert_allclose(run(bundle, "fused"), mean_of_table(), atol=1e-6)


@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("pooling", ["cls", "last", "max", "mean_sqrt_len"])
def test_every_pooling_can_follow_an_export(tmp_path: Path, opset: int, pooling: str) -> None:
    model = write_export(tmp_path / "model", export_model(opset=opset), pooling=pooling, normalize=False)
    expected = np.stack([POOL[pooling](TABLE[text].astype(np.float64)) for text in TEXTS])
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), "fused"), expected, atol=1e-5)


def test_a_dense_layer_and_fewer_dimensions_can_follow_an_export(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(), dense=16)
    found = run(build(model, tmp_path / "bundle", dim=4), "fused")
    assert found.shape == (len(TEXTS), 4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_an_export_needs_no_token_types(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=(IDS, MASK)))
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), "fused"), mean_of_table(), atol=1e-6)


def test_token_embeddings_is_another_name_for_the_output(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(output="token_embeddings"))
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), "fused"), mean_of_table(), atol=1e-6)


def test_a_half_precision_export_gives_float32_vectors(tmp_path: Path) -> None:
    halves = TABLE.astype(np.float16)
    model = write_export(tmp_path / "model", export_model(table=halves))
    found = run(build(model, tmp_path / "bundle"), "fused")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mean_of_table(table=halves), atol=1e-6)


def test_only_the_ids_the_mask_and_one_matrix_are_left_of_an_export(tmp_path: Path) -> None:
    bundle = build(write_export(tmp_path / "model", export_model()), tmp_path / "bundle")
    graph = onnx.load_model(graph_path(bundle, "fused")).graph
    inputs = {value.name: [axis.dim_param for axis in value.type.tensor_type.shape.dim] for value in graph.input}
    assert inputs == {IDS: ["batch", "sequence"], MASK: ["batch", "sequence"]}
    assert len(graph.output) == 1
    assert [axis.dim_param or axis.dim_value for axis in graph.output[0].type.tensor_type.shape.dim] == ["batch", 32]


def test_an_export_is_left_to_the_runtime_to_optimise(tmp_path: Path) -> None:
    bundle = build(write_export(tmp_path / "model", export_model()), tmp_path / "bundle")
    assert all(graph.optimise for graph in bundle.card.graphs.values())


def test_weights_beside_an_export_are_copied_and_checked(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", keep_weights_in(export_model(), "model.onnx_data"))
    (model / "onnx/model.onnx_data").write_bytes(TABLE.tobytes())
    bundle = build(model, tmp_path / "bundle")
    np.testing.assert_allclose(run(bundle, "fused"), mean_of_table(), atol=1e-6)
    (bundle.folder / "model.onnx_data").write_bytes(bytes(TABLE.nbytes))
    with pytest.raises(ModelError, match=r"model\.onnx_data is missing or damaged"):
        check_files(bundle)


def test_the_identity_of_an_export_covers_the_weights_beside_it(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", keep_weights_in(export_model(), "model.onnx_data"))
    (model / "onnx/model.onnx_data").write_bytes(TABLE.tobytes())
    before = build(model, tmp_path / "before").card.weights
    (model / "onnx/model.onnx_data").write_bytes((TABLE + 1).tobytes())
    assert build(model, tmp_path / "after").card.weights != before


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "..\\secret", "data/weights", "..", ""])
def test_weights_outside_the_exports_folder_are_refused(tmp_path: Path, place: str) -> None:
    model = write_export(tmp_path / "model", keep_weights_in(export_model(), place))
    (tmp_path / "model/secret").write_bytes(TABLE.tobytes())
    with pytest.raises(ModelError, match=r"outside its folder; that is refused|is missing"):
        build(model, tmp_path / "bundle")


def test_missing_weights_beside_an_export_are_named(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", keep_weights_in(export_model(), "model.onnx_data"))
    with pytest.raises(ModelError, match=r"model\.onnx_data is missing: model\.onnx keeps its weights there"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            TABLE.tobytes()[:-1],
            r"has [\d,]+ bytes, and model\.onnx keeps weights up to byte [\d,]+ there: it is cut short",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
            "does not hold the weights .* Git LFS",
        ),
        (b"", "does not hold the weights of model.onnx: it is empty"),
    ],
    ids=["cut short", "a pointer", "empty"],
)
def test_incomplete_weights_beside_an_export_are_named(tmp_path: Path, content: bytes, said: str) -> None:
    model = write_export(tmp_path / "model", keep_weights_in(export_model(), "model.onnx_data"))
    (model / "onnx/model.onnx_data").write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.onnx_data {said}"):
        build(model, tmp_path / "bundle")


def test_a_file_above_2_gib_is_named(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model())
    with (model / "onnx/model.onnx").open("r+b") as file:
        file.truncate(2**31)
    with pytest.raises(
        ModelError, match=r"model\.onnx is larger than 2 GiB.* export it with its weights in a file beside"
    ):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["model_quantized.onnx", "model_fp16.onnx", "encoder.onnx"])
def test_an_export_under_another_name_is_read(tmp_path: Path, name: str) -> None:
    model = write_export(tmp_path / "model", export_model(), place=f"onnx/{name}")
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), "fused"), mean_of_table(), atol=1e-6)


def test_an_export_needs_no_config(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model())
    (model / "config.json").unlink()
    bundle = build(model, tmp_path / "bundle")
    assert bundle.card.recipe.max_tokens == 32
    np.testing.assert_allclose(run(bundle, "fused"), mean_of_table(), atol=1e-6)


@pytest.mark.parametrize(("shape", "fixed"), [((1, "sequence"), "batch"), (("batch", 128), "sequence")])
def test_fixed_shapes_are_refused(tmp_path: Path, shape: tuple[str | int, ...], fixed: str) -> None:
    model = write_export(tmp_path / "model", export_model(shape=shape))
    with pytest.raises(ModelError, match=rf"has a fixed {fixed} size; export it with dynamic axes"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("shape", [("batch",), ("batch", "sequence", "one")], ids=len)
def test_inputs_of_another_rank_are_refused(tmp_path: Path, shape: tuple[str, ...]) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=(IDS, MASK), shape=shape))
    with pytest.raises(ModelError, match=r"input_ids is not int64 \[batch, sequence\]"):
        build(model, tmp_path / "bundle")


def test_ids_of_another_type_are_refused(tmp_path: Path) -> None:
    export = export_model()
    export.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    with pytest.raises(ModelError, match=r"input_ids is not int64 \[batch, sequence\]"):
        build(write_export(tmp_path / "model", export), tmp_path / "bundle")


@pytest.mark.parametrize("inputs", [(IDS, MASK, "position_ids"), (IDS,)], ids="+".join)
def test_unknown_or_missing_inputs_are_refused(tmp_path: Path, inputs: tuple[str, ...]) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=inputs))
    with pytest.raises(ModelError, match=r"takes the inputs \['.*; an encoder with input_ids, attention_mask"):
        build(model, tmp_path / "bundle")


def test_an_export_without_token_embeddings_is_refused(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(output="sentence_embedding"))
    with pytest.raises(ModelError, match=r"outputs \['sentence_embedding'\]; one of last_hidden_state"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("content", [b"no ONNX at all", b""], ids=["words", "empty"])
def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path, content: bytes) -> None:
    model = write_export(tmp_path / "model", export_model())
    (model / "onnx/model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=at("onnx/model.onnx")):
        build(model, tmp_path / "bundle")


def test_a_bert_is_built_from_its_safetensors_even_beside_an_export(tiny_model: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    onnx.save_model(export_model(), model / "model.onnx")
    bundle, plain = build(model, tmp_path / "bundle"), build(tiny_model, tmp_path / "plain")
    assert bundle.card.files == plain.card.files
