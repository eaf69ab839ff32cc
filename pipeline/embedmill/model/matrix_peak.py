"""Matrix products alone, to measure the most that a device computes: what a model is held against."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from embedmill.model.graph import IR_VERSION, OPSET, GraphWriter

INPUT = "scale"
# Products one after another, so that starting a run is little beside computing it.
PRODUCTS = 8


def peak_flops(size: int) -> int:
    """Operations of one run of the graph of `size` (2 n^3 each, as in `model/flops.py`)."""
    return PRODUCTS * 2 * size**3


def write_peak(folder: Path, size: int, *, half: bool) -> Path:
    """The graph of `PRODUCTS` products of [size, size] matrices, written once; its path.

    Its input is one float32, `scale` [1], and its output float32 [size], so that nothing is copied to the device and
    little from it: the matrix is a weight, and the input scales it, without which a runtime would compute the products
    once when it loads the graph. With `half` they are computed in float16. All shapes are fixed.
    """
    path = folder / f"peak-{size}{'-fp16' if half else ''}.onnx"
    if path.exists():
        return path
    graph = GraphWriter()
    scale = INPUT
    if half:
        graph.floats = np.float16
        scale = graph.cast(scale)
    # Entries of this deviation keep the products as large as the matrix: they neither overflow nor vanish.
    draw = np.random.default_rng(size)
    matrix = graph.weight("matrix", (draw.standard_normal((size, size), np.float32) * np.float32(size**-0.5)))
    value = graph.op("Mul", matrix, scale)
    for _ in range(PRODUCTS):
        value = graph.op("MatMul", value, matrix)
    value = graph.reduce("ReduceSum", value, 1, keepdims=False)
    graph.floats = np.float32
    graph.op("Cast", value, name="sums", to=TensorProto.FLOAT) if half else graph.op("Identity", value, name="sums")
    made = helper.make_graph(
        graph.nodes,
        "peak",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("sums", TensorProto.FLOAT, [size])],
        graph.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    onnx.save_model(helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION), path)
    return path
