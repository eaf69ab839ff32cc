"""Writer of ONNX graphs with a shared file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from embedmill.base.signals import checkpoint

MICROSOFT = "com.microsoft"
OPSET = 17
IR_VERSION = 9
# Shape inference reads small constants, such as axes, only from the graph itself.
_INLINE_BYTES = 1024
# A page, so that a runtime can map the tensors.
_ALIGNMENT = 4096

Array = npt.NDArray[Any]


class WeightFile:
    """File of page-aligned tensors, each written once."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self._tensors: dict[str, TensorProto] = {}

    def add(self, name: str, array: Array) -> TensorProto:
        """Write `array` unless already written; return the reference for graphs."""
        if name not in self._tensors:
            self._tensors[name] = self._write(name, np.ascontiguousarray(array))
        return self._tensors[name]

    def _write(self, name: str, array: Array) -> TensorProto:
        checkpoint()
        self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            dims=array.shape,
            data_location=TensorProto.EXTERNAL,
        )
        location = {"location": self._name, "offset": self._file.tell(), "length": array.nbytes}
        for key, value in location.items():
            tensor.external_data.add(key=key, value=str(value))
        self._file.write(array.data)
        return tensor


class GraphWriter:
    """Builder of one graph's nodes and weights.

    Methods return the names of values. Weights and scalars are stored as `floats`, which may change within a graph.
    """

    def __init__(self, weights: WeightFile | None = None, *, opset: int = OPSET, prefix: str = "") -> None:
        self.floats: type[np.float16] | type[np.float32] = np.float32
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.opset, self._prefix, self._weights = opset, prefix, weights
        self._names: set[str] = set()

    def op(self, kind: str, *inputs: str, name: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node with one output."""
        return self.ops(kind, *inputs, outputs=1, name=name, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *inputs: str, outputs: int, name: str = "", domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs."""
        node = name or f"{self._prefix}{kind}_{len(self.nodes)}"
        names = [node] if outputs == 1 else [f"{node}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=node, domain=domain, **attributes))
        return names

    def weight(self, name: str, array: Array) -> str:
        """Add a tensor, in the weight file from 1 KiB."""
        if array.dtype == np.float32:
            array = array.astype(self.floats, copy=False)
        if name not in self._names:
            self._names.add(name)
            # ascontiguousarray would turn a scalar into [1].
            tensor = (
                self._weights.add(name, array)
                if self._weights is not None and array.nbytes >= _INLINE_BYTES
                else numpy_helper.from_array(np.asarray(array, order="C"), name)
            )
            self.initializers.append(tensor)
        return name

    def ints(self, *values: int) -> str:
        """Add a constant int64 [n]."""
        return self.weight(f"{self._prefix}ints_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """Add a constant scalar of type `floats`."""
        kind = "half" if self.floats is np.float16 else "scalar"
        return self.weight(f"{self._prefix}{kind}_{value!r}", np.array(value, np.float32))

    def cast(self, value: str) -> str:
        """Cast `value` to `floats`."""
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(self.floats)))

    def reduce(self, kind: str, value: str, axis: int, *, keepdims: bool) -> str:
        """Reduce one axis."""
        # Axes became an input in opset 13 (ReduceSum) and 18 (all other reductions).
        if self.opset >= (13 if kind == "ReduceSum" else 18):
            return self.op(kind, value, self.ints(axis), keepdims=int(keepdims))
        return self.op(kind, value, axes=[axis], keepdims=int(keepdims))

    def unsqueeze(self, value: str, axis: int) -> str:
        """Insert an axis."""
        # Axes became an input in opset 13.
        if self.opset >= 13:
            return self.op("Unsqueeze", value, self.ints(axis))
        return self.op("Unsqueeze", value, axes=[axis])

    def linear(self, value: str, name: str, weight: Array, bias: Array | None) -> str:
        """Multiply [..., in] by `weight` [in, out]; add `bias` [out]."""
        product = self.op("MatMul", value, self.weight(f"{name}.weight", weight))
        return product if bias is None else self.op("Add", product, self.weight(f"{name}.bias", bias))

    def save(self, path: Path, *, inputs: Sequence[str], output: str, dim: int) -> None:
        """Save with int64 [batch, sequence] inputs, float32 [batch, dim] output."""
        graph = helper.make_graph(
            self.nodes,
            "embedmill",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"]) for name in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", dim])],
            self.initializers,
        )
        domains = {"": self.opset} | {node.domain: 1 for node in self.nodes if node.domain}
        opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
        onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION), path)
