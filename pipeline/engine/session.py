"""One ONNX Runtime session over one graph of a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from pipeline.engine.catalogue import Provider
from pipeline.errors import DeviceError
from pipeline.records import Batch, FloatArray, Tokens


class Session:
    """Runs batches. On CPU, `run` may be called from several threads at once: the weights are shared,
    and each call computes in its caller's thread when `threads` is 1."""

    def __init__(self, graph: Path, provider: Provider, *, threads: int, optimise: bool, pad_id: int) -> None:
        """Raises DeviceError where the provider is not there or refuses the graph."""
        if provider.ort_name not in ort.get_available_providers():
            raise DeviceError(
                f"this ONNX Runtime ({ort.__version__}) has no {provider.name} provider;"
                " install the build that has it, or choose another with --provider"
            )
        try:
            self._session = ort.InferenceSession(
                graph, _options(threads, optimise), providers=[provider.ort_name], enable_fallback=0
            )
        except _ORT_ERRORS as error:
            raise DeviceError(f"{provider.name} cannot run {graph}: {_first_line(error)}") from error
        self._provider = provider.name
        self._pad_id = pad_id

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Vectors of one batch, float32 [batch, dim]. Raises DeviceError if the runtime fails."""
        ids, mask = pad(tokens, batch, self._pad_id)
        try:
            vectors: FloatArray = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        except _ORT_ERRORS as error:
            raise DeviceError(
                f"{self._provider} failed on a batch of {len(batch.rows)} x {batch.sequence} tokens:"
                f" {_first_line(error)}; the run can be resumed"
            ) from error
        return vectors


def pad(tokens: Tokens, batch: Batch, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """`input_ids` and `attention_mask` of a batch, int64 [batch, sequence], padded to the right."""
    lengths = tokens.lengths[batch.rows]
    mask = np.arange(batch.sequence) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    starts = tokens.offsets[batch.rows]
    ids[mask] = np.concatenate(
        [tokens.ids[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    )
    return ids, mask.astype(np.int64)


def _options(threads: int, optimise: bool) -> ort.SessionOptions:
    """`optimise` lets the runtime fuse operators; the graphs of bundles we built are fused already."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_ENABLE_BASIC
    return options


# What the runtime would log of an error is in the exception that it raises.
_FATAL = 4
ort.set_default_logger_severity(_FATAL)


def _runtime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions: they share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "Fail",
        "InvalidGraph",
        "InvalidArgument",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
        "EPFail",
        "EngineError",
    )
    return (*(getattr(state, name) for name in names if hasattr(state, name)), RuntimeError, ValueError)


_ORT_ERRORS = _runtime_errors()


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
