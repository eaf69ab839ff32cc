"""Placement of the nodes of a graph by ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from typing import Any

from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.runtime import ort

Placement = Counter[tuple[str, str]]


def placement(session: ort.InferenceSession) -> Placement:
    """Count nodes by (provider, operator); empty where not reported.

    Needs a session that was opened with `session.record_ep_graph_assignment_info`.
    """
    # ONNX Runtime before 1.24 has no such method.
    assignments: Any = getattr(session, "get_provider_graph_assignment_info", tuple)()
    return Counter((part.ep_name, node.op_type) for part in assignments for node in part.get_nodes())


def misplacement(placed: Placement, provider: Provider) -> str:
    """Describe nodes outside the provider; empty where none are misplaced."""
    if not placed:
        return ""
    if not any(name == provider.ort.name for name, _ in placed):
        return f"it took none of the {sum(placed.values())} nodes"
    outside = sorted((kind, count) for (name, kind), count in placed.items() if name != provider.ort.name)
    listed = ", ".join(f"{count} x {kind}" for kind, count in outside if kind not in provider.ort.on_cpu)
    if not listed:
        return ""
    flavours = " or ".join(dict.fromkeys(choice.graph for choice in provider.precisions.values()))
    return (
        f"it leaves operators to the CPU ({listed}); it runs the {flavours} graph of a model: export this one without"
        " them, or choose another --provider"
    )
