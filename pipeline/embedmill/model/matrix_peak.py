"""Write graphs of matrix products to measure a device's peak."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from embedmill.model.graph import IR_VERSION, OPSET, GraphWriter

INPUT = "scale"
# Enough products in a row that starting a run takes little of the time.
PRODUCTS = 8


def peak_flops(size: int) -> int:
    """Return the operations of one run, 2 n^3 per product."""
    return PRODUCTS * 2 * size**3


def write_peak_graph(folder: Path, size: int, *, half: bool) -> Path:
    """Write a graph of `PRODUCTS` matrix products; return the path.

    Matrices are [size, size], all shapes fixed. The input is `scale`, float32 [1], the output float32 [size], so next
    to nothing is copied to or from the device. `half` computes in float16. An existing file is kept.
    """
    path = folder / f"peak-{size}{'-fp16' if half else ''}.onnx"
    if path.exists():
        return path
    graph = GraphWriter()
    graph.floats = np.float16 if half else np.float32
    scale = graph.cast(INPUT) if half else INPUT
    # With this deviation the products stay as large as the matrix: they neither overflow nor vanish.
    random = np.random.default_rng(size)
    matrix = graph.weight("matrix", (random.standard_normal((size, size), np.float32) * np.float32(size**-0.5)))
    # Without an input a runtime would compute the products once, while loading the graph.
    value = graph.op("Mul", matrix, scale)
    for _ in range(PRODUCTS):
        value = graph.op("MatMul", value, matrix)
    value = graph.reduce("ReduceSum", value, 1, keepdims=False)
    graph.floats = np.float32
    graph.op("Cast", value, name="sums", to=TensorProto.FLOAT) if half else graph.op("Identity", value, name="sums")
    peak = helper.make_graph(
        graph.nodes,
        "peak",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, [size])],
        graph.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    onnx.save_model(helper.make_model(peak, opset_imports=opsets, ir_version=IR_VERSION), path)
    return path
