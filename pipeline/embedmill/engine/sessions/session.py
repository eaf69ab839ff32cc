"""One ONNX Runtime session over one graph of a bundle, on the provider that was asked for and no other."""

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
import onnxruntime as ort
from msgspec import structs

from embedmill.base.errors import DeviceError, DeviceLost, OutOfMemory
from embedmill.base.records import Batch, FloatArray, Tokens
from embedmill.base.signals import checkpoint
from embedmill.engine.catalogue.entry import Meaning, Provider
from embedmill.engine.catalogue.runtimes import FAULTS
from embedmill.engine.devices import RUNTIME_ERRORS, Device, first_line, runtime_devices
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.sessions.options import STRICT, SessionPlan
from embedmill.engine.sessions.placement import placement, stray_words

_RECORD = "session.record_ep_graph_assignment_info"
_REMEDIES: dict[Meaning, str] = {
    "out of memory": "the device is out of memory; lower engine.budget_tokens, or close what else uses it",
    "device lost": "the device was lost (its driver reset it); run again, and update its driver if it happens again",
    "driver too old": "the driver is too old for this runtime; update it",
}


def _ignore(*_: object) -> None:
    """No one is told."""


class Session:
    """Runs batches. Where the provider runs batches side by side, `run` may be called from several threads at
    once: the weights are shared, and each call computes in its caller's thread when `threads` is 1. Elsewhere
    a lock lets one through at a time: a session's own, or one for all sessions of an adapter."""

    _adapter: ClassVar[threading.RLock] = threading.RLock()

    def __init__(
        self,
        plan: SessionPlan,
        provider: Provider,
        *,
        pad_id: int,
        device: Device | None = None,
        contexts: ContextCache | None = None,
        on_run: Callable[[Batch, float], None] = _ignore,
    ) -> None:
        """Raises DeviceError where the provider is not there, refuses the graph, or leaves nodes to the CPU, and
        OutOfMemory where there is none for it.

        A provider that compiles finds in `contexts` what it compiled before; `context` is the key of one that
        was kept and is used. `on_run` is told each batch that ran, and its seconds.
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
        if words := stray_words(placed, provider):
            raise DeviceError(f"{provider.name} cannot run {plan.graph}: {words}")

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Vectors of one batch, float32 [texts, dim]. Raises DeviceError if the runtime fails.

        OutOfMemory where that is for want of memory; the session may then fail for batches that it ran before.
        DeviceLost where the device is gone: no session of this process can reach it any more.
        """
        checkpoint()
        ids, mask = pad(tokens, batch, self._pad_id)
        what = f"a batch of {batch.size} x {batch.sequence} tokens"
        vectors, took = self.compute({"input_ids": ids, "attention_mask": mask}, what)
        self._on_run(batch, took)
        return vectors[: len(batch.rows)]

    def compute(self, inputs: dict[str, np.ndarray], what: str) -> tuple[FloatArray, float]:
        """The graph's only output, and the seconds. Raises as `run` does; `what` says on what."""
        try:
            with self._turn:
                began = time.perf_counter()
                output = self._bound(inputs) if self._provider.ort.bound else self._plain(inputs)
                took = time.perf_counter() - began
        except RUNTIME_ERRORS as error:
            raise _kind_of(self._provider, error)(
                f"{self._provider.name} failed on {what}: {explain(self._provider, error)}; the run can be resumed"
            ) from error
        with self._count:
            self.busy_s += took
        return output, took

    def close(self) -> None:
        """Give back what it holds; nothing may run in it, then or later."""
        with self._turn:
            del self._session

    def _plain(self, inputs: dict[str, np.ndarray]) -> FloatArray:
        output: FloatArray = self._session.run(None, inputs)[0]
        return output

    def _bound(self, inputs: dict[str, np.ndarray]) -> FloatArray:
        """The inputs go straight to the device, and only the output comes back."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output(self._session.get_outputs()[0].name, "cpu")
        self._session.run_with_iobinding(binding)
        output: FloatArray = binding.copy_outputs_to_cpu()[0]
        return output


def pad(tokens: Tokens, batch: Batch, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """`input_ids` and `attention_mask` of a batch, int64 [size, sequence], padded to the right.

    An empty row of a fixed shape has one token: nothing is divided by its length of 0.
    """
    lengths = np.zeros(batch.size, np.int64)
    lengths[: len(batch.rows)] = tokens.lengths[batch.rows]
    mask = np.arange(batch.sequence) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, np.int64)
    starts = tokens.offsets[batch.rows]
    ids[mask] = np.concatenate(
        [tokens.ids[start : start + length] for start, length in zip(starts, lengths, strict=False)]
    )
    mask[len(batch.rows) :, 0] = True
    return ids, mask.astype(np.int64)


def explain(provider: Provider, error: Exception) -> str:
    """What the runtime said in one line, and the remedy where its code is known."""
    meaning = _meaning(provider, error)
    return first_line(error) if meaning is None else f"{first_line(error)} ({_REMEDIES[meaning]})"


def _meaning(provider: Provider, error: Exception) -> Meaning | None:
    """What the runtime's code says of it, where that is known."""
    if isinstance(error, MemoryError):
        return "out of memory"
    said = str(error)
    return next((fault.meaning for fault in (*provider.ort.faults, *FAULTS) if re.search(fault.pattern, said)), None)


def _kind_of(provider: Provider, error: Exception) -> type[DeviceError]:
    kinds: dict[Meaning | None, type[DeviceError]] = {"out of memory": OutOfMemory, "device lost": DeviceLost}
    return kinds.get(_meaning(provider, error), DeviceError)


def _open_compiled(
    plan: SessionPlan, provider: Provider, device: Device | None, contexts: ContextCache
) -> tuple[ort.InferenceSession, str | None]:
    """A session from a kept context, and its key; where there is none that loads, compile, and keep it."""
    key = contexts.key(provider.name, structs.asdict(plan) | {"graph": _digest(Path(plan.graph))}, device)
    kept = contexts.find(key)
    if kept is not None:
        try:
            return _open(structs.replace(plan, graph=str(kept), free={}), provider, device), key
        except DeviceError:
            contexts.discard(key)
    with contexts.new(key) as file:
        writing = {"ep.context_enable": "1", "ep.context_file_path": str(file), "ep.context_embed_mode": "0"}
        return _open(structs.replace(plan, session=plan.session | writing), provider, device), None


def _digest(graph: Path) -> str:
    """sha256 of a graph, its weights left out; empty where it cannot be read, which opening it says better."""
    try:
        return hashlib.sha256(graph.read_bytes()).hexdigest()
    except OSError:
        return ""


def _open(plan: SessionPlan, provider: Provider, device: Device | None) -> ort.InferenceSession:
    """A session without any fallback of the runtime's."""
    options = _options(plan)
    try:
        arguments = _attach(options, plan, provider, device)
        session = ort.InferenceSession(plan.graph, options, enable_fallback=0, **arguments)
    except RUNTIME_ERRORS as error:
        raise _kind_of(provider, error)(
            f"{provider.name} cannot run {plan.graph}: {_strays(plan, provider, device) or explain(provider, error)}"
        ) from error
    if provider.ort.name not in session.get_providers():
        raise DeviceError(f"{provider.name} was asked for, and ONNX Runtime opened the session without it")
    return session


def _attach(
    options: ort.SessionOptions, plan: SessionPlan, provider: Provider, device: Device | None
) -> dict[str, Any]:
    """Name the provider: a plugin by its device in `options`, a built-in one by the arguments returned."""
    if provider.ort.plugin is None:
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


def _strays(plan: SessionPlan, provider: Provider, device: Device | None) -> str:
    """Which operators kept a strict session from opening, found by one that is not strict; empty if none did."""
    if not plan.strict:
        return ""
    lax = {key: value for key, value in plan.session.items() if key != STRICT}
    try:
        session = _open(structs.replace(plan, strict=False, session=lax), provider, device)
    except DeviceError:
        return ""
    return stray_words(placement(session), provider)


def _options(plan: SessionPlan) -> ort.SessionOptions:
    """`optimise` lets the runtime fuse operators; the graphs of bundles we built are fused already."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = plan.memory_pattern
    options.log_severity_level = _FATAL
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if plan.optimise else levels.ORT_ENABLE_BASIC
    for key, value in {**plan.session, _RECORD: "1"}.items():
        options.add_session_config_entry(key, value)
    for name, size in plan.free.items():
        options.add_free_dimension_override_by_name(name, size)
    return options


# What the runtime would log of an error is in the exception that it raises.
_FATAL = 4
ort.set_default_logger_severity(_FATAL)
