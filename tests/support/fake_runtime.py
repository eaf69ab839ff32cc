"""Stands in for ONNX Runtime where it opens sessions, so that a provider can be tested that is not here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

MOON = "MoonExecutionProvider"
STRICT = "session.disable_cpu_ep_fallback"
Nodes = dict[tuple[str, str], int]


class Runtime:
    """What the runtime does, and what was asked of it.

    `nodes` are counted by (provider, operator); `refuse` may raise for a graph and its options; `before_run` is
    called when a session runs; `tells` is False for a runtime that cannot tell where nodes went.
    """

    def __init__(self) -> None:
        self.nodes: Nodes = {(MOON, "MatMul"): 5}
        self.providers = [MOON, "CPUExecutionProvider"]
        self.refuse: Callable[[Path, ort.SessionOptions], None] = lambda *_: None
        self.before_run: Callable[[], None] = lambda: None
        self.on_open: Callable[[], None] = lambda: None
        self.tells = True
        self.opened: list[tuple[Path, ort.SessionOptions, dict[str, Any]]] = []

    def entries(self, *keys: str) -> list[tuple[str, ...]]:
        """Session config entries of every session that was asked for; empty where one has none."""
        return [tuple(_entry(options, key) for key in keys) for _, options, _ in self.opened]

    def session(self, graph: str, options: ort.SessionOptions, **arguments: Any) -> FakeSession | ToldSession:
        self.opened.append((Path(graph), options, arguments))
        self.on_open()
        self.refuse(Path(graph), options)
        strays = any(provider != MOON for provider, _ in self.nodes)
        if _entry(options, STRICT) == "1" and strays:
            raise RuntimeError("This session contains graph nodes that are assigned to the default CPU EP")
        return ToldSession(self) if self.tells else FakeSession(self)


class FakeSession:
    """A session whose vectors are ones; a runtime before 1.24 has no more."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def get_providers(self) -> Sequence[str]:
        return self.runtime.providers

    def run(self, outputs: None, inputs: dict[str, np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
        self.runtime.before_run()
        return [np.ones((len(inputs["input_ids"]), 2), np.float32)]


class ToldSession(FakeSession):
    """A session that tells where its nodes are."""

    def get_provider_graph_assignment_info(self) -> list[SimpleNamespace]:
        return [
            SimpleNamespace(ep_name=provider, get_nodes=lambda kind=kind, count=count: [_node(kind)] * count)
            for (provider, kind), count in self.runtime.nodes.items()
        ]


class Crowd:
    """Counts who is inside at the same time, and the most there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._here = 0
        self.most = 0
        self._pause = threading.Event()

    def visit(self) -> None:
        """Come, stay a moment, go."""
        with self._lock:
            self._here += 1
            self.most = max(self.most, self._here)
        self._pause.wait(0.02)
        with self._lock:
            self._here -= 1


def _node(kind: str) -> SimpleNamespace:
    return SimpleNamespace(op_type=kind)


def _entry(options: ort.SessionOptions, key: str) -> str:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:
        return ""


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The runtime that sessions meet."""
    stands_in = Runtime()
    monkeypatch.setattr(ort, "InferenceSession", stands_in.session)
    monkeypatch.setattr(ort, "get_available_providers", lambda: [MOON, "CPUExecutionProvider"])
    return stands_in
