"""Exports of every kind are fitted to ids, mask and token embeddings, or the cause is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from embedmill.base.config import TextTable
from embedmill.base.errors import ModelError
from tests.model.test_export import IDS, MASK, TABLE, TYPES, export_model, mean_of_table, write_export
from tests.support.running import build, run
from tests.support.tiny_model import HIDDEN, bert_config, write_json

Change = Callable[[onnx.ModelProto], object]


def free(model: onnx.ModelProto, *, size: int | None = None) -> None:
    """Its inputs' and outputs' sizes have no names."""
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim[:2]:
            dimension.Clear()
            if size is not None:
                dimension.dim_value = size


def without_shapes(model: onnx.ModelProto) -> None:
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")


def one_name_for_both(model: onnx.ModelProto) -> None:
    for dimension in (axis for value in model.graph.input for axis in value.type.tensor_type.shape.dim):
        dimension.dim_param = "N"


def typed(kind: int, names: tuple[str, ...] = (IDS, MASK, TYPES)) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for value in model.graph.input:
            if value.name in names:
                value.type.tensor_type.elem_type = kind

    return change


def renamed(**names: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for value in model.graph.input:
            value.name = names.get(value.name, value.name)
        for node in model.graph.node:
            node.input[:] = [names.get(name, name) for name in node.input]

    return change


def weights_among_the_inputs(model: onnx.ModelProto) -> None:
    """As every graph before version 4 of the format has them."""
    model.ir_version = 3
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def used_in_a_branch(model: onnx.ModelProto) -> None:
    """The ids are read inside an If, from the graph around it."""
    typed(TensorProto.INT32, (IDS,))(model)
    gather = model.graph.node[0]
    out = helper.make_tensor_value_info("picked", TensorProto.FLOAT, None)
    branches = [
        helper.make_graph([helper.make_node("Gather", ["table", IDS], ["picked"], axis=0)], name, [], [out])
        for name in ("then", "else")
    ]
    yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    choose = helper.make_node("If", ["yes"], [gather.output[0]], then_branch=branches[0], else_branch=branches[1])
    rest = list(model.graph.node)[1:]
    del model.graph.node[:]
    model.graph.node.extend([yes, choose, *rest])


READABLE: dict[str, Change] = {
    "sizes without names": free,
    "sizes of -1": lambda model: free(model, size=-1),
    "no shapes": without_shapes,
    "one name for both sizes": one_name_for_both,
    "int32 inputs": typed(TensorProto.INT32),
    "int32 ids": typed(TensorProto.INT32, (IDS,)),
    "int32 ids in a branch": used_in_a_branch,
    "a mask of floats": typed(TensorProto.FLOAT, (MASK,)),
    "a mask of bools": typed(TensorProto.BOOL, (MASK,)),
    "names of BERT's first code": renamed(attention_mask="input_mask", token_type_ids="segment_ids"),
    "names of tf2onnx": renamed(input_ids="input_ids:0", attention_mask="attention_mask:0"),
    "weights among the inputs": weights_among_the_inputs,
    "a version of the format that the runtime refuses": lambda model: setattr(model, "ir_version", 14),
}


@pytest.mark.parametrize("change", READABLE.values(), ids=READABLE)
def test_an_export_is_read_that_has(tmp_path: Path, change: Change) -> None:
    export = export_model()
    change(export)
    bundle = build(write_export(tmp_path / "model", export), tmp_path / "bundle")
    np.testing.assert_allclose(run(bundle, "fused"), mean_of_table(), atol=1e-6)
    graph = onnx.load_model(bundle.folder / "model.onnx").graph
    inputs = {value.name: [axis.dim_param for axis in value.type.tensor_type.shape.dim] for value in graph.input}
    assert inputs == {IDS: ["batch", "sequence"], MASK: ["batch", "sequence"]}


@pytest.mark.parametrize("name", ["0", "output_0", "last_hidden_state:0", "encoder_out"])
def test_the_only_output_of_three_dimensions_may_have_any_name(tmp_path: Path, name: str) -> None:
    model = write_export(tmp_path / "model", export_model(output=name))
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), "fused"), mean_of_table(), atol=1e-6)


def test_pooled_outputs_beside_the_tokens_are_left_out(tmp_path: Path) -> None:
    export = export_model()
    export.graph.node.append(helper.make_node("ReduceMax", ["last_hidden_state", "last"], ["sentence_embedding"]))
    pooled = helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch_size", 1, HIDDEN])
    export.graph.output.insert(0, pooled)
    model = write_export(tmp_path / "model", export)
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), "fused"), mean_of_table(), atol=1e-6)


def test_two_outputs_of_tokens_without_a_usual_name_are_refused(tmp_path: Path) -> None:
    export = export_model(output="0")
    export.graph.node.append(helper.make_node("Neg", ["0"], ["1"]))
    export.graph.output.append(helper.make_tensor_value_info("1", TensorProto.FLOAT, ["b", "s", HIDDEN]))
    with pytest.raises(ModelError, match=r"has the outputs \['0', '1'\]; one of last_hidden_state, token_embeddings"):
        build(write_export(tmp_path / "model", export), tmp_path / "bundle")


@pytest.mark.parametrize("shape", [None, [None, None, None], ["b", "s", "h"]], ids=["none", "free", "named"])
def test_a_width_that_the_output_lacks_is_that_of_the_config(tmp_path: Path, shape: list[str | None] | None) -> None:
    export = export_model()
    del export.graph.output[:]
    export.graph.output.append(helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, shape))
    model = write_export(tmp_path / "model", export)
    assert build(model, tmp_path / "bundle").card.dim == HIDDEN
    write_json(model / "config.json", {"model_type": "lookup", "max_position_embeddings": 64})
    with pytest.raises(ModelError, match=r"does not state the width .*add hidden_size to its config\.json"):
        build(model, tmp_path / "none")
    write_json(model / "config.json", bert_config() | {"model_type": "lookup", "hidden_size": 40})
    with pytest.raises(ModelError, match=r"gives \[32\] numbers, not 40; correct its config\.json"):
        build(model, tmp_path / "other")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("past_key_values.0.key", "a decoder with a cache; export it without one"),
        ("decoder_input_ids", "an encoder with its decoder; export the encoder alone"),
        ("pixel_values", "it embeds images"),
        ("input_features", "it embeds sound"),
        ("inputs_embeds", "embeddings in place of tokens"),
        ("position_ids", "first position of this kind of model is not known"),
        ("task_id", r"is expected$"),
    ],
)
def test_inputs_that_nothing_can_fill_are_named_with_the_cause(tmp_path: Path, extra: str, said: str) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=(IDS, MASK, extra)))
    with pytest.raises(ModelError, match=rf"takes the inputs \[.*{extra}.*{said}"):
        build(model, tmp_path / "bundle")


def test_an_export_without_a_mask_is_refused_with_the_cause(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=(IDS,)))
    with pytest.raises(ModelError, match=r"attention_mask is missing, and without it padding would change the vectors"):
        build(model, tmp_path / "bundle")


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(("kind", "first"), [("bert", 0), ("roberta", 1)])
def test_position_ids_are_filled_where_their_first_is_known(tmp_path: Path, kind: str, first: int, opset: int) -> None:
    export = export_model(inputs=(IDS, MASK, "position_ids"), opset=opset)
    gather = export.graph.node[0]
    gather.output[0] = "words"
    export.graph.node.append(helper.make_node("Cast", ["position_ids"], ["placed"], to=TensorProto.FLOAT))
    export.graph.node.append(helper.make_node("Reshape", ["placed", "rows"], ["column"]))
    export.graph.initializer.append(helper.make_tensor("rows", TensorProto.INT64, [3], [0, 0, 1]))
    export.graph.node.append(helper.make_node("Add", ["words", "column"], ["last_hidden_state"]))
    model = write_export(tmp_path / "model", export, normalize=False)
    write_json(model / "config.json", bert_config() | {"model_type": kind})
    bundle = build(model, tmp_path / "bundle")
    texts = [[2, 7, 9, 3], [2, 3]]
    expected = [TABLE[text].mean(axis=0) + first + np.arange(len(text)).mean() for text in texts]
    np.testing.assert_allclose(run(bundle, "fused", texts), expected, atol=1e-5)


def test_the_identity_covers_the_first_position_id(tmp_path: Path) -> None:
    """The same graph and weights give other vectors where positions begin elsewhere."""
    model = write_export(tmp_path / "model", export_model(inputs=(IDS, MASK, "position_ids")))
    identities = set()
    for number, change in enumerate([{"model_type": "bert"}, {"model_type": "roberta"}]):
        write_json(model / "config.json", bert_config() | {"max_position_embeddings": 512} | change)
        identities.add(build(model, tmp_path / f"bundle-{number}").model(TextTable()).identity)
    assert len(identities) == 2


@pytest.mark.parametrize("opset", [11, 12])
def test_an_old_opset_can_be_read(tmp_path: Path, opset: int) -> None:
    export = export_model(inputs=(IDS, MASK), opset=opset)
    model = write_export(tmp_path / "model", export)
    np.testing.assert_allclose(run(build(model, tmp_path / "bundle"), "fused"), mean_of_table(), atol=1e-6)


def test_an_opset_before_the_heads_operators_is_named(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=(IDS, MASK), opset=9))
    with pytest.raises(ModelError, match=r"uses operators of opset 9; export it again with opset 14 or newer"):
        build(model, tmp_path / "bundle")


def test_an_opset_of_the_future_is_told_in_the_runtimes_words(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=(IDS, MASK), opset=28))
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot open its graph: .*[oO]pset") as info:
        build(model, tmp_path / "bundle")
    assert "resumed" not in str(info.value)
    assert "tokenizer" not in str(info.value)


def test_last_pooling_of_an_older_export_is_named(tmp_path: Path) -> None:
    model = write_export(tmp_path / "model", export_model(inputs=(IDS, MASK), opset=11), pooling="last")
    with pytest.raises(ModelError, match=r"last pooling needs opset 12, and this export has 11"):
        build(model, tmp_path / "bundle")
