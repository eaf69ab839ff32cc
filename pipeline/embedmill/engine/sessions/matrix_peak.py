"""Matrix products on a device, in an ordinary session."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from msgspec import structs

from embedmill.base.records import Model
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.sessions.options import plan_session
from embedmill.engine.sessions.session import Session
from embedmill.engine.target import Target

_RUNS, _MEASURED_S = 3, 0.5


def fastest_product(model: Model, target: Target, graph: Path, *, measured_s: float = _MEASURED_S) -> float:
    """Time the fastest run of a graph of `model/matrix_peak.py`.

    Returns seconds. Runs go on for `measured_s`, on all usable cores of a CPU. Raises DeviceError for a refused graph.
    """
    plan = plan_session(model, target.provider, target.precision, threads=usable_cores(), device=target.device)
    session = Session(structs.replace(plan, graph=str(graph)), target.provider, pad_id=0, device=target.device)
    taken: list[float] = []
    # The first run warms up, and no two have the same input: a runtime may keep what it computed.
    while len(taken) <= _RUNS or sum(taken[1:]) < measured_s:
        scale = np.array([1 + 1e-3 * len(taken)], np.float32)
        began = time.perf_counter()
        session.compute({"scale": scale}, "a product of matrices")
        taken.append(time.perf_counter() - began)
    return min(taken[1:])
