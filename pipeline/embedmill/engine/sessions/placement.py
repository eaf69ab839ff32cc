"""Where ONNX Runtime put the nodes of a graph."""

from __future__ import annotations

from collections import Counter

import onnxruntime as ort

from embedmill.engine.catalogue.entry import Provider

Placement = Counter[tuple[str, str]]


def placement(session: ort.InferenceSession) -> Placement:
    """Nodes by (provider, operator); empty where this runtime does not tell (before 1.24).

    The session was opened with `session.record_ep_graph_assignment_info`.
    """
    tell = getattr(session, "get_provider_graph_assignment_info", None)
    if tell is None:
        return Counter()
    return Counter((part.ep_name, node.op_type) for part in tell() for node in part.get_nodes())


def stray_words(placed: Placement, provider: Provider) -> str:
    """What is wrong with a placement, in words; empty where every node is where it should be."""
    if not placed:
        return ""
    if not any(name == provider.ort.name for name, _ in placed):
        return f"it took none of the {sum(placed.values())} nodes"
    strays = {kind: count for (name, kind), count in placed.items() if name != provider.ort.name}
    listed = ", ".join(f"{count} x {kind}" for kind, count in sorted(strays.items()) if kind not in provider.ort.on_cpu)
    if not listed:
        return ""
    flavours = " or ".join(dict.fromkeys(choice.graph for choice in provider.precisions.values()))
    return (
        f"it leaves operators to the CPU ({listed}); it runs the {flavours} graph of a model: export this one without"
        " them, or choose another --provider"
    )
