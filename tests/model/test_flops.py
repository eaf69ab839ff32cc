"""Operations counted in a graph equal a count by hand; without a full count there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from embedmill.model.build import build_bundle
from embedmill.model.flops import TextFlops, text_flops
from tests.support.jobs import tiny_bundle
from tests.support.tiny_model import HIDDEN, INTERMEDIATE, LAYERS, write_tiny_model

# Query, key, value and output are h x h, the feed-forward layers h x f and f x h; 2 operations per weight and token.
PER_TOKEN = LAYERS * 2 * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INTERMEDIATE)
# Every token is held against every other twice: for the scores, and for the sum of the values.
PER_PAIR = LAYERS * 2 * 2 * HIDDEN


@pytest.fixture(scope="module")
def folder(tiny_model: Path) -> Path:
    return tiny_bundle(tiny_model)


@pytest.mark.parametrize("flavour", ["unfused", "unfused-fp16"])
def test_an_encoder_costs_what_a_hand_counts(folder: Path, flavour: str) -> None:
    assert text_flops(folder / f"{flavour}.onnx") == TextFlops(text=0, token=PER_TOKEN, pair=PER_PAIR)


def test_it_is_what_the_weights_of_the_fused_graph_make(folder: Path) -> None:
    graph = onnx.load_model(folder / "fused.onnx", load_external_data=False).graph
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    weights = [sizes[node.input[1]] for node in graph.node if node.op_type in ("MatMul", "Attention")]
    attentions = [sizes[node.input[1]] for node in graph.node if node.op_type == "Attention"]
    found = text_flops(folder / "unfused.onnx")
    assert found is not None
    assert found.token == sum(2 * rows * columns for rows, columns in weights)
    assert found.pair == sum(4 * columns // 3 for _, columns in attentions)


def test_a_dense_layer_costs_once_per_text(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    source = write_tiny_model(tmp_path / "model", dense=24)
    build_bundle(source, tmp_path / "bundle", name="tiny", origin="tests")
    found = text_flops(tmp_path / "bundle" / "unfused.onnx")
    assert found == TextFlops(text=2 * HIDDEN * 24, token=PER_TOKEN, pair=PER_PAIR)


def test_texts_are_counted_one_by_one() -> None:
    cost = TextFlops(text=1000, token=10, pair=1)
    assert cost.total(np.array([2, 5])) == (1000 + 20 + 4) + (1000 + 50 + 25)
    assert cost.total(np.array([], np.int64)) == 0


def test_large_counts_do_not_overflow() -> None:
    assert TextFlops(text=0, token=10**12, pair=0).total(np.full(10**4, 10**4)) == 10**20


def test_where_products_hide_in_another_operator_the_cost_is_unknown(folder: Path) -> None:
    assert text_flops(folder / "fused.onnx") is None


def test_what_is_no_graph_has_no_cost(tmp_path: Path) -> None:
    assert text_flops(tmp_path / "absent.onnx") is None
    (tmp_path / "broken.onnx").write_bytes(b"\xff\xff\xff")
    assert text_flops(tmp_path / "broken.onnx") is None


@pytest.mark.parametrize(("kind", "domain"), [("Einsum", ""), ("MatMulNBits", "com.microsoft")])
def test_one_operator_that_may_hold_products_makes_all_of_it_unknown(
    folder: Path, tmp_path: Path, kind: str, domain: str
) -> None:
    model = onnx.load_model(folder / "unfused.onnx", load_external_data=False)
    model.graph.node.append(onnx.helper.make_node(kind, [model.graph.input[0].name], ["aside"], domain=domain))
    onnx.save_model(model, tmp_path / "unfused.onnx")
    assert text_flops(tmp_path / "unfused.onnx") is None
