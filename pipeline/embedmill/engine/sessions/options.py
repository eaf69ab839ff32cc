"""Session plan: graph, options and shapes of a session. Pure."""

from __future__ import annotations

from msgspec import Struct

from embedmill.base.errors import ModelError
from embedmill.base.records import Bucket, Model
from embedmill.engine.catalogue.entry import Precision, Provider
from embedmill.engine.devices import Device

STRICT = "session.disable_cpu_ep_fallback"


class SessionPlan(Struct, frozen=True, kw_only=True):
    """Everything that a session is opened with, as plain data.

    `model` is the identity of what `graph` computes; `session` are session config entries, `options` the
    provider's, `free` fixes named dimensions of the graph.
    """

    model: str
    graph: str
    optimise: bool
    threads: int
    memory_pattern: bool
    strict: bool
    session: dict[str, str]
    options: dict[str, str]
    free: dict[str, int]


def plan_session(
    model: Model,
    provider: Provider,
    precision: Precision,
    *,
    threads: int,
    bucket: Bucket | None = None,
    device: Device | None = None,
    memory_bytes: int | None = None,
) -> SessionPlan:
    """Plan a session. Raises ModelError without a usable graph."""
    choice = provider.precisions[precision]
    graph = model.graphs.get(choice.graph)
    if graph is None:
        raise ModelError(
            f"{model.name} has no {choice.graph} graph, which {provider.name} needs for {precision};"
            f" it has: {', '.join(sorted(model.graphs))}; choose another with engine.precision (--precision)"
        )
    ort = provider.ort
    if ort.opset is not None and graph.opset > ort.opset:
        raise ModelError(
            f"{model.name} uses operators of opset {graph.opset}, and {provider.name} knows them up to"
            f" {ort.opset}; export it again with opset {ort.opset} or lower, or choose another --provider"
        )
    # The runtime cannot allow single operators on the CPU: with such a list, `placement` is checked instead.
    strict = ort.strict and not ort.on_cpu
    return SessionPlan(
        model=model.identity,
        graph=str(model.path(graph.file)),
        optimise=graph.optimise,
        threads=threads,
        memory_pattern=ort.memory_pattern,
        strict=strict,
        session=ort.session | ({STRICT: "1"} if strict else {}),
        options=_provider_options(provider, precision, device, memory_bytes),
        free={} if bucket is None else {"batch": bucket.rows, "sequence": bucket.sequence},
    )


def _provider_options(
    provider: Provider, precision: Precision, device: Device | None, memory_bytes: int | None
) -> dict[str, str]:
    ort = provider.ort
    options = ort.options | provider.precisions[precision].options
    if device is not None and device.emulated:
        options = options | ort.emulated
    if ort.device is not None:
        # Where the runtime does not give the provider's own number of a device, the place in its list serves.
        number = None if device is None else device.metadata.get(ort.device.metadata, str(device.index))
        options = options | (ort.device.default if number is None else {ort.device.option: number})
    if memory_bytes is not None and ort.memory_limit is not None:
        options = options | {ort.memory_limit: str(memory_bytes)}
    return options
