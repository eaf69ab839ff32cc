"""Works for an engine, and a session that needs no device."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.records import Batch, Bucket, Canaries, FloatArray, Graph, Model, Packing, Tokens, Work
from embedmill.batch.pack import pack
from embedmill.engine.catalogue import find_provider
from embedmill.engine.catalogue.entry import (
    Architecture,
    Distribution,
    Exact,
    GraphChoice,
    Ladder,
    OnnxRuntime,
    Plugin,
    Precision,
    Provider,
    System,
)
from embedmill.engine.engine import Engine
from embedmill.engine.runners.local import LocalRunner
from embedmill.engine.sessions.options import SessionPlan
from embedmill.engine.spec import EngineSpec
from embedmill.engine.target import Target

CPU = find_provider("cpu")
PACKING = Packing(budget_tokens=16)
NO_TOKENS = Tokens(ids=np.empty(0, np.int32), offsets=np.zeros(1, np.int64), truncated=np.empty(0, np.bool_))


def tokens_of(texts: Sequence[Sequence[int]]) -> Tokens:
    """Tokens of texts given as lists of ids."""
    return Tokens(
        ids=np.array([token for text in texts for token in text], np.int32),
        offsets=np.cumsum([0, *map(len, texts)], dtype=np.int64),
        truncated=np.zeros(len(texts), np.bool_),
    )


def canaries_of(texts: Sequence[Sequence[int]], vectors: Sequence[Sequence[float]]) -> Canaries:
    """Canaries of texts given as lists of ids."""
    return Canaries(tokens=tokens_of(texts), vectors=np.array(vectors, np.float32))


def work_of(texts: Sequence[Sequence[int]], packing: Packing = PACKING) -> Work:
    """Texts packed into batches."""
    tokens = tokens_of(texts)
    return Work(tokens=tokens, batches=pack(tokens.lengths, packing))


def buckets_of(*shapes: tuple[int, int]) -> tuple[Bucket, ...]:
    """Buckets of (rows, sequence)."""
    return tuple(Bucket(rows=rows, sequence=sequence) for rows, sequence in shapes)


def fixed(*shapes: tuple[int, int]) -> Packing:
    """Packing into buckets of (rows, sequence)."""
    return Packing(budget_tokens=max(rows * sequence for rows, sequence in shapes), buckets=buckets_of(*shapes))


def model(
    *,
    dim: int = 2,
    normalized: bool = False,
    canaries: Canaries | None = None,
    max_tokens: int = 32,
    weights_bytes: int = 1 << 20,
    graphs: Sequence[str] = ("fused",),
    opset: int = 17,
) -> Model:
    """A model that only a fake session can run; without `canaries` it has none."""
    return Model(
        name="fake",
        identity="0" * 64,
        folder="nowhere",
        files={},
        graphs={flavour: Graph(file=f"{flavour}.onnx", opset=opset, optimise=False) for flavour in graphs},
        weights_bytes=weights_bytes,
        canaries=canaries or Canaries(tokens=NO_TOKENS, vectors=np.empty((0, dim), np.float32)),
        tokenizer="tokenizer.json",
        dim=dim,
        pad_id=0,
        max_tokens=max_tokens,
        prompt="",
        lowercase=False,
        normalized=normalized,
    )


def provider_of(**changes: Any) -> Provider:
    """An entry that is no one's: CPU nodes under a name of its own, with `changes`."""
    fields = {"name": changes.pop("ort_name", "MoonExecutionProvider")}
    fields |= {name: changes.pop(name) for name in OnnxRuntime.__struct_fields__[1:] if name in changes}
    values: dict[str, Any] = {
        "name": "moon",
        "drives": "the moon",
        "endpoint": OnnxRuntime(**fields),
        "distributions": (),
        "kinds": ("gpu",),
        "precisions": {"fp32": GraphChoice(graph="fused", floor=0.99999)},
        "shapes": Exact(budget_tokens=16),
        "runs": "one",
        "memory": "unknown",
    }
    return Provider(**(values | changes))


def installed(provider: Provider, package: str = "numpy") -> Provider:
    """The entry as one that is installed on every machine, with the version of `package`."""
    places: list[tuple[System, Architecture]] = [("Windows", "x86_64"), ("Windows", "arm64"), ("Darwin", "arm64")]
    places += [("Linux", "x86_64"), ("Linux", "arm64")]
    found = tuple(
        Distribution(system=system, architectures=(architecture,), package=package) for system, architecture in places
    )
    return structs.replace(with_ort(provider, plugin=Plugin(module="json")), distributions=found, wsl="")


def not_installed(provider: Provider) -> Provider:
    """The entry as one that can be installed on every machine, and is not."""
    return with_ort(installed(provider), plugin=Plugin(module="no_such_plugin"))


def with_ort(provider: Provider, **changes: Any) -> Provider:
    """The entry with changes of what is ONNX Runtime's."""
    return structs.replace(provider, endpoint=structs.replace(provider.ort, **changes))


def ladder_of(*sequences: int, budget_tokens: int = 64, most_rows: int = 8, weights_bytes: int = 2 << 30) -> Ladder:
    """A ladder of sequences."""
    return Ladder(budget_tokens=budget_tokens, sequences=sequences, most_rows=most_rows, weights_bytes=weights_bytes)


def target_of(provider: Provider = CPU, precision: Precision = "fp32") -> Target:
    """A target without a device."""
    return Target(provider=provider, precision=precision, device=None, chosen="asked for")


def engine_of(
    known: Model,
    config: EngineTable,
    *,
    provider: Provider = CPU,
    packing: Packing = PACKING,
    precision: Precision = "fp32",
    **options: Any,
) -> Engine:
    """An engine on a provider without devices; `options` are the runner's."""
    return engine_on(known, target_of(provider, precision), packing, config, **options)


def engine_on(known: Model, target: Target, packing: Packing, config: EngineTable, **options: Any) -> Engine:
    """An engine whose sessions are in this process; `options` are the runner's."""
    return Engine(LocalRunner(EngineSpec.decide(known, target, config, packing), **options))


def with_graph(provider: Provider, graph: str, *, precision: Precision = "fp32", floor: float = 0.99999) -> Provider:
    """The entry with one precision, which runs `graph`."""
    choice = GraphChoice(graph=graph, floor=floor)  # type: ignore[arg-type]
    return structs.replace(provider, precisions={precision: choice})


def vector_of(text: Sequence[int]) -> list[int]:
    """What the fake session gives for a text: its first token and its length."""
    return [text[0], len(text)]


class FakeSession:
    """Stands in for a Session; `answer`, where it is set, gives the vectors of a batch."""

    answer: ClassVar[Callable[[Tokens, Batch], FloatArray] | None] = None
    ran: ClassVar[list[Batch]] = []
    opened: ClassVar[list[tuple[SessionPlan, Provider, dict[str, Any]]]] = []
    closed: ClassVar[list[SessionPlan]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, plan: SessionPlan, provider: Provider, **options: Any) -> None:
        self.opened.append((plan, provider, options))
        self.plan = plan
        self.nodes = 7
        self.nodes_placed = 7
        self.busy_s = 0.5
        self.context: str | None = None

    def close(self) -> None:
        self.closed.append(self.plan)

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        with self.lock:
            self.ran.append(batch)
        answer = type(self).answer
        if answer is not None:
            return answer(tokens, batch)
        texts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist() for row in batch.rows]
        return np.array([vector_of(text) for text in texts], np.float32)
