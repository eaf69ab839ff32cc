"""The most operations per second that a device reaches in matrix products, through the runtime that a run uses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from msgspec import structs

from embedmill.base.records import Model
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.sessions.options import plan_session
from embedmill.engine.sessions.session import Session
from embedmill.engine.target import Target

# A size is run so often and so long; the next one, 8 times the work, only where a run of it would end in this time.
_RUNS, _MEASURED_S, _NEXT_S = 3, 0.5, 1.0


def matrix_peak(
    target: Target,
    model: Model,
    sizes: Iterable[int],
    graph_of: Callable[[int], Path],
    flops_of: Callable[[int], int],
) -> float:
    """The best of several sizes of a graph of products, each at its fastest run, in operations per second.

    Sessions are opened as those of `model`, with all usable cores where it is the CPU that computes. Raises
    DeviceError where the provider does not take the graph.
    """
    plan = plan_session(model, target.provider, target.precision, threads=usable_cores(), device=target.device)
    best = 0.0
    for size in sizes:
        graph = structs.replace(plan, graph=str(graph_of(size)))
        session = Session(graph, target.provider, pad_id=0, device=target.device)
        least_s = _least_seconds(session)
        best = max(best, flops_of(size) / least_s)
        if 8 * least_s > _NEXT_S:
            break
    return best


def _least_seconds(session: Session) -> float:
    """The fastest run; the first one warms up, and no two have the same input."""
    taken: list[float] = []
    while len(taken) <= _RUNS or sum(taken[1:]) < _MEASURED_S:
        scale = np.array([1 + 1e-3 * len(taken)], np.float32)
        began = time.perf_counter()
        session.compute({"scale": scale}, "a product of matrices")
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
