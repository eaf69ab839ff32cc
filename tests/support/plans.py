"""Plans of sessions, and batches for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embedmill.base.records import Batch
from embedmill.engine.sessions.options import SessionPlan


def plan_of(graph: Path, **changes: Any) -> SessionPlan:
    """A plan that asks for nothing but a graph, with `changes`."""
    values: dict[str, Any] = {
        "model": "0" * 64,
        "graph": str(graph),
        "optimise": False,
        "threads": 1,
        "memory_pattern": True,
        "strict": False,
        "session": {},
        "options": {},
        "free": {},
    }
    return SessionPlan(**(values | changes))


def batch_of(*rows: int, sequence: int, size: int = 0) -> Batch:
    """A batch of rows by their numbers; without a `size` there are no empty ones."""
    return Batch(rows=np.array(rows, np.int64), size=size or len(rows), sequence=sequence)
