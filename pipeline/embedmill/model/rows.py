"""Compute a batch row by row inside the graph.

Dynamic quantisation scales activations by the extremes of the whole tensor, so that in a batch each vector would depend
on padding and on the other texts. Row by row, and without padding, a text has one vector.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from embedmill.model.bert import INPUTS
from embedmill.model.graph import GraphWriter
from embedmill.model.head import OUTPUT
from embedmill.model.inspection import messages_of

# Operators that find their scale in the tensor at hand.
_DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul"})


def scales_by_batch(model: onnx.ModelProto) -> bool:
    """Return True for a graph that quantises activations dynamically."""
    return any(isinstance(message, onnx.NodeProto) and message.op_type in _DYNAMIC for message in messages_of(model))


def rename_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value in all nodes, subgraphs included."""
    for message in messages_of(graph):
        if isinstance(message, onnx.NodeProto):
            message.input[:] = [new if name == old else name for name in message.input]
            message.output[:] = [new if name == old else name for name in message.output]


def compute_by_row(model: onnx.ModelProto, *, opset: int, dim: int) -> None:
    """Put a finished graph into a Scan over rows.

    Each row is cut to its tokens, the ones of `attention_mask`, which stand at its beginning.
    """
    graph = model.graph
    row = GraphWriter(opset=opset, prefix="embedmill_row_")
    length = row.reduce("ReduceSum", "embedmill_row_1", 0, keepdims=True)
    for number, name in enumerate(INPUTS):
        tokens = row.op("Slice", f"embedmill_row_{number}", row.ints(0), length, row.ints(0))
        rename_value(graph, name, row.unsqueeze(tokens, 0))
    rename_value(graph, OUTPUT, "embedmill_row_vector")
    before = list(row.nodes)
    last = row.op("Reshape", "embedmill_row_vector", row.ints(dim))
    body = helper.make_graph(
        [*before, *graph.node, row.nodes[-1]],
        "embedmill_row",
        [
            helper.make_tensor_value_info(f"embedmill_row_{n}", TensorProto.INT64, ["sequence"])
            for n in range(len(INPUTS))
        ],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [dim])],
    )
    del graph.node[:], graph.value_info[:]
    graph.initializer.extend(row.initializers)
    graph.node.append(helper.make_node("Scan", list(INPUTS), [OUTPUT], body=body, num_scan_inputs=len(INPUTS)))
