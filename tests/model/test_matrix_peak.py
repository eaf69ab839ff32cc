"""The graph for measuring a device's peak throughput."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from embedmill.model.matrix_peak import PRODUCTS, peak_flops, write_peak_graph

SIZE = 64


def run(path: Path, scale: float) -> np.ndarray:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"scale": np.array([scale], np.float32)})[0])


def expected(path: Path, scale: float) -> np.ndarray:
    matrix = numpy_helper.to_array(onnx.load_model(path).graph.initializer[0]).astype(np.float64)
    return np.asarray((scale * np.linalg.matrix_power(matrix, PRODUCTS + 1)).sum(axis=1))


@pytest.mark.parametrize(("half", "error"), [(False, 1e-4), (True, 0.05)], ids=["fp32", "fp16"])
def test_it_computes_the_products_that_it_is_counted_for(tmp_path: Path, half: bool, error: float) -> None:
    path = write_peak_graph(tmp_path, SIZE, half=half)
    found = run(path, 1.5)
    assert found.shape == (SIZE,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(path, 1.5), atol=error * np.abs(found).max())
    assert peak_flops(SIZE) == PRODUCTS * 2 * SIZE**3


def test_values_neither_overflow_nor_vanish(tmp_path: Path) -> None:
    found = run(write_peak_graph(tmp_path, 256, half=True), 1.0)
    assert 0.5 < np.abs(found).mean() < 100


def test_no_runtime_can_compute_it_once_and_for_all(tmp_path: Path) -> None:
    """The optimised graph still holds every product."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(write_peak_graph(tmp_path, SIZE, half=False), options, providers=["CPUExecutionProvider"])
    nodes = onnx.load_model(tmp_path / "optimised.onnx").graph.node
    assert sum(node.op_type in ("MatMul", "Gemm", "FusedMatMul") for node in nodes) == PRODUCTS


def test_all_shapes_are_fixed(tmp_path: Path) -> None:
    graph = onnx.load_model(write_peak_graph(tmp_path, SIZE, half=False)).graph
    sizes = [dim.dim_value for value in [*graph.input, *graph.output] for dim in value.type.tensor_type.shape.dim]
    assert sizes == [1, SIZE]


def test_it_is_written_once(tmp_path: Path) -> None:
    first = write_peak_graph(tmp_path, SIZE, half=False)
    written = first.stat().st_mtime_ns
    assert write_peak_graph(tmp_path, SIZE, half=False) == first
    assert first.stat().st_mtime_ns == written
    assert write_peak_graph(tmp_path, SIZE, half=True) != first
