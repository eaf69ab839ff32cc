"""ONNX Runtime session on exactly one provider, without fallback."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from msgspec import structs

from embedmill.base import telemetry
from embedmill.base.errors import DeviceError, DeviceLost, OutOfMemory
from embedmill.base.records import Batch, FloatArray, Tokens
from embedmill.base.signals import checkpoint
from embedmill.engine.catalogue.entry import Meaning, Provider
from embedmill.engine.catalogue.runtimes import FAULTS
from embedmill.engine.devices import Device, first_line, runtime_devices
from embedmill.engine.plugins import plugin_of
from embedmill.engine.runtime import FATAL, RUNTIME_ERRORS, ort
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.sessions.options import STRICT, SessionPlan
from embedmill.engine.sessions.placement import misplacement, placement

_RECORD = "session.record_ep_graph_assignment_info"
_REMEDIES: dict[Meaning, str] = {
    "out of memory": "the device is out of memory; lower engine.budget_tokens, or close what else uses it",
    "device lost": "the device was lost (its driver reset it); run again, and update its driver if it happens again",
    "driver too old": "the driver is too old for this runtime; update it",
}
_KINDS: dict[Meaning | None, type[DeviceError]] = {"out of memory": OutOfMemory, "device lost": DeviceLost}


class Session:
    """Session over one graph; `run` is thread-safe.

    On cores, weights are shared, and each call computes in its caller's thread when `threads` is 1. Elsewhere a lock
    lets one batch through at a time: per session, or for all sessions of an adapter.
    """

    _adapter: ClassVar[threading.RLock] = threading.RLock()

    def __init__(
        self,
        plan: SessionPlan,
        provider: Provider,
        *,
        pad_id: int,
        device: Device | None = None,
        contexts: ContextCache | None = None,
        on_run: Callable[[Batch, float], None] = lambda *_: None,
    ) -> None:
        """Open the session; `context` keys the cached context in use.

        A provider that compiles loads from `contexts`; `on_run` gets each batch and its seconds. Raises DeviceError
        where the provider is missing, refuses the graph, or leaves nodes to the CPU, and OutOfMemory.
        """
        self.plan = plan
        self._provider = provider
        self._pad_id = pad_id
        self._on_run = on_run
        self._count = threading.Lock()
        self.busy_s = 0.0
        self.context: str | None = None
        locks: dict[str, AbstractContextManager[Any]] = {
            "cores": nullcontext(),
            "one": threading.Lock(),
            "adapter": self._adapter,
        }
        self._turn = locks[provider.runs]
        with self._turn:
            if provider.ort.compiled and contexts is not None:
                self._session, self.context = _open_compiled(plan, provider, device, contexts)
            else:
                self._session = _open(plan, provider, device)
            placed = placement(self._session)
        self.nodes = sum(placed.values())
        self.nodes_placed = sum(count for (name, _), count in placed.items() if name == provider.ort.name)
        if fault := misplacement(placed, provider):
            raise DeviceError(f"{provider.name} cannot run {plan.graph}: {fault}")

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Compute one batch: float32 [texts, dim]. Raises DeviceError.

        After OutOfMemory the session may fail for batches that it ran before; after DeviceLost no session of this
        process can reach the device any more.
        """
        checkpoint()
        ids, mask = pad(tokens, batch, self._pad_id)
        what = f"a batch of {batch.size} x {batch.sequence} tokens"
        vectors, took = self.compute({"input_ids": ids, "attention_mask": mask}, what)
        self._on_run(batch, took)
        return vectors[: len(batch.rows)]

    def compute(self, inputs: dict[str, np.ndarray], what: str) -> tuple[FloatArray, float]:
        """Return output and seconds; raise as `run` about `what`."""
        try:
            with self._turn:
                began = time.perf_counter()
                output = self._bound(inputs) if self._provider.ort.bound else self._session.run(None, inputs)[0]
                took = time.perf_counter() - began
        except RUNTIME_ERRORS as error:
            raise runtime_failure(self._provider, error, f"failed on {what}", running=True) from error
        with self._count:
            self.busy_s += took
        return output, took

    def close(self) -> None:
        """Release the session; no batch may run then or later."""
        with self._turn:
            del self._session

    def _bound(self, inputs: dict[str, np.ndarray]) -> FloatArray:
        """Run with bound inputs: only the output is copied back."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output(self._session.get_outputs()[0].name, "cpu")
        self._session.run_with_iobinding(binding)
        output: FloatArray = binding.copy_outputs_to_cpu()[0]
        return output


def pad(tokens: Tokens, batch: Batch, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad a batch to `input_ids` and `attention_mask`, int64 [size, sequence]."""
    lengths = np.zeros(batch.size, np.int64)
    lengths[: len(batch.rows)] = tokens.lengths[batch.rows]
    mask = np.arange(batch.sequence) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    starts = tokens.offsets[batch.rows]
    ids[mask] = np.concatenate(
        [tokens.ids[start : start + length] for start, length in zip(starts, lengths, strict=False)]
    )
    # An empty row of a fixed shape counts one token, so that pooling does not divide by 0.
    mask[len(batch.rows) :, 0] = True
    return ids, mask.astype(np.int64)


def runtime_failure(
    provider: Provider, error: Exception, action: str, *, cause: str = "", running: bool = False
) -> DeviceError:
    """Translate a runtime error, with remedies for known codes."""
    faults = (*provider.ort.faults, *FAULTS)
    meaning = next((fault.meaning for fault in faults if re.search(fault.pattern, str(error))), None)
    if isinstance(error, MemoryError):
        meaning = "out of memory"
    remedy = "" if meaning is None else f" ({_REMEDIES[meaning]})"
    # What is not understood depends on the batch, as far as one can tell.
    hint = (
        "the run can be resumed"
        if meaning is not None
        else "a resume would fail alike: try another --provider or model"
    )
    hint = f"; {hint}" if running else ""
    return _KINDS.get(meaning, DeviceError)(f"{provider.name} {action}: {cause or first_line(error) + remedy}{hint}")


def _open_compiled(
    plan: SessionPlan, provider: Provider, device: Device | None, contexts: ContextCache
) -> tuple[ort.InferenceSession, str | None]:
    """Load the cached context with key, or compile one."""
    key = contexts.key(provider, structs.asdict(plan) | {"graph": _digest(Path(plan.graph))}, device)
    cached = contexts.find(key)
    if cached is not None:
        try:
            return _open(structs.replace(plan, graph=str(cached), free={}), provider, device), key
        except DeviceError:
            # A driver that was updated may refuse contexts of the one before.
            contexts.discard(key)
    with contexts.new(key) as file:
        writing = {"ep.context_enable": "1", "ep.context_file_path": str(file), "ep.context_embed_mode": "0"}
        return _open(structs.replace(plan, session=plan.session | writing), provider, device), None


def _digest(graph: Path) -> str:
    """Hash a graph without weights; empty if unreadable."""
    try:
        return hashlib.sha256(graph.read_bytes()).hexdigest()
    except OSError:
        # Opening the graph fails next, with the better message.
        return ""


def _open(plan: SessionPlan, provider: Provider, device: Device | None) -> ort.InferenceSession:
    """Open a session without the fallback of the runtime."""
    options = _options(plan)
    # Windows' own reporting has no variable, only this switch.
    (ort.enable_telemetry_events if telemetry.allowed() else ort.disable_telemetry_events)()
    try:
        arguments = _attach(options, plan, provider, device)
        session = ort.InferenceSession(plan.graph, options, enable_fallback=0, **arguments)
    except RUNTIME_ERRORS as error:
        cause = _misplaced(plan, provider, device)
        raise runtime_failure(provider, error, f"cannot run {plan.graph}", cause=cause) from error
    if provider.ort.name not in session.get_providers():
        raise DeviceError(f"{provider.name} was asked for, and ONNX Runtime opened the session without it")
    return session


def _attach(
    options: ort.SessionOptions, plan: SessionPlan, provider: Provider, device: Device | None
) -> dict[str, Any]:
    """Add a plugin to `options`, or return built-in provider arguments."""
    if plugin_of(provider.ort) is None:
        if provider.ort.name not in ort.get_available_providers():
            raise DeviceError(
                f"this ONNX Runtime ({ort.__version__}) has no {provider.name} provider; install the build that has"
                " it (`embedmill doctor` has the line), or choose another with --provider"
            )
        if provider.ort.preload:
            ort.preload_dlls()
        return {"providers": [(provider.ort.name, plan.options)]}
    found = runtime_devices(provider)
    if not found:
        raise DeviceError(
            f"{provider.name} finds no device on this machine{f'; {provider.note}' * bool(provider.note)}"
        )
    index = device.index if device is not None else 0
    if index >= len(found):
        raise DeviceError(f"{provider.name} has no device {index} any more; it has {len(found)}")
    options.add_provider_for_devices([found[index]], plan.options)
    return {}


def _misplaced(plan: SessionPlan, provider: Provider, device: Device | None) -> str:
    """Name the operators that kept a strict session from opening."""
    if not plan.strict:
        return ""
    # The error of a strict session names no operator; the placement of one that is not strict does.
    lax = {key: value for key, value in plan.session.items() if key != STRICT}
    try:
        session = _open(structs.replace(plan, strict=False, session=lax), provider, device)
    except DeviceError:
        return ""
    return misplacement(placement(session), provider)


def _options(plan: SessionPlan) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = plan.memory_pattern
    options.log_severity_level = FATAL
    # The graphs of our own bundles are fused already; `optimise` is for others.
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if plan.optimise else levels.ORT_ENABLE_BASIC
    for key, value in {**plan.session, _RECORD: "1"}.items():
        options.add_session_config_entry(key, value)
    for name, size in plan.free.items():
        options.add_free_dimension_override_by_name(name, size)
    return options
