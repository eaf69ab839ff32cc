"""A graph that quantises activations dynamically gives each text one vector, whatever stands beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tests.model.test_export import IDS, MASK, export_model, mean_of_table, write_export
from tests.support.running import TEXTS, build, run


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_activations_that_are_quantised_dynamically_do_not_depend_on_the_batch(tmp_path: Path, opset: int) -> None:
    """Their scale is that of the tensor at hand, so a text's vector would change with padding and other texts."""
    export = export_model(inputs=(IDS, MASK), output="exact", opset=opset)
    export.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["exact"], ["bytes", "scale", "zero"]))
    export.graph.node.append(helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["last_hidden_state"]))
    export.graph.output[0].name = "last_hidden_state"
    bundle = build(write_export(tmp_path / "model", export, place="onnx/model_quantized.onnx"), tmp_path / "bundle")
    alone = np.concatenate([run(bundle, "fused", [text]) for text in TEXTS])
    np.testing.assert_array_equal(run(bundle, "fused", TEXTS, sequence=40), alone)
    np.testing.assert_allclose(alone, mean_of_table(), atol=1e-2)
