"""Wire protocol of runner and host, in MessagePack.

No message holds a path: a model is named by the sha256 of its files, and the host says which of them it lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs

from embedmill.base.records import Batch, Canaries, Graph, Model, Packing, Tokens, Work
from embedmill.base.results import SessionFacts
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.engine.memory.usage import PeakUsage
from embedmill.engine.runners.base import RunnerFacts, RunnerOptions
from embedmill.engine.spec import EngineSpec
from embedmill.engine.target import Target

# Raised with every change of the messages below: near and far end may be of two installations.
PROTOCOL = 1


class Message(Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages; `number` pairs request and reply."""

    number: int


class Hello(Message, frozen=True, tag=True):
    """First message of a host: the protocol in use."""

    protocol: int


class ListDevices(Message, frozen=True, tag=True):
    """Request: the devices of a provider. Reply: Devices."""

    provider: Provider


class Open(Message, frozen=True, tag=True):
    """Request: open a specification (`encode_spec`). Reply: Opened, or MissingFiles."""

    spec: bytes
    options: RunnerOptions


class SendFile(Message, frozen=True, tag=True):
    """Part of a missing file, `number` as in Open.

    `last` ends all files, and has the reply of Open.
    """

    name: str
    data: bytes
    last: bool


class Run(Message, frozen=True, tag=True):
    """Request: one batch. Reply: Done.

    `ids` int32 are the tokens of its texts end to end, `lengths` int64 theirs, `size` x `sequence` the shape.
    """

    ids: bytes
    lengths: bytes
    size: int
    sequence: int


class Time(Message, frozen=True, tag=True):
    """Request: passes for at least `seconds`, or one. Reply: Timed.

    `ids` and `lengths` as in Run; a batch is its rows as int64, its size and its sequence.
    """

    ids: bytes
    lengths: bytes
    batches: list[tuple[bytes, int, int]]
    seconds: float


class Multiply(Message, frozen=True, tag=True):
    """Request: time a graph of matrix products. Reply: Multiplied."""

    graph: bytes


class GetFacts(Message, frozen=True, tag=True):
    """Request: the facts so far. Reply: Facts."""


class Devices(Message, frozen=True, tag=True):
    """Reply: devices in the runtime's order."""

    devices: list[Device]


class MissingFiles(Message, frozen=True, tag=True):
    """Reply: model files that the host lacks and waits for."""

    names: list[str]


class Opened(Message, frozen=True, tag=True):
    """Reply: sessions are ready; `ceiling_bytes` None: not measured."""

    ceiling_bytes: int | None


class Done(Message, frozen=True, tag=True):
    """Reply: float32 vectors, seconds so far, and sessions opened meanwhile."""

    vectors: bytes
    busy_s: float
    sessions: list[SessionFacts]


class Timed(Message, frozen=True, tag=True):
    """Reply: passes, with total seconds, processor seconds and peak memory.

    `whole` is false where a batch was cut because memory was short.
    """

    passes: int
    seconds: float
    processor_s: float
    whole: bool
    peak: PeakUsage | None


class Multiplied(Message, frozen=True, tag=True):
    """Reply: seconds of the fastest run."""

    seconds: float


class Facts(Message, frozen=True, tag=True):
    """Reply: facts and peak memory (None: not measured)."""

    facts: RunnerFacts
    peak: PeakUsage | None


class Failed(Message, frozen=True, tag=True):
    """Reply instead of any other: class and message of error."""

    error: str
    message: str


class Notice(Message, frozen=True, tag=True):
    """Message for people, without a request."""

    text: str


Request = ListDevices | Open | SendFile | Run | Time | Multiply | GetFacts
Reply = Hello | Devices | MissingFiles | Opened | Done | Timed | Multiplied | Facts | Failed | Notice


decode_request: Callable[[bytes], Request] = msgspec.msgpack.Decoder(Request).decode
decode_reply: Callable[[bytes], Reply] = msgspec.msgpack.Decoder(Reply).decode


def encode_spec(spec: EngineSpec) -> bytes:
    """Encode a specification for another process, without the model folder."""
    return msgspec.msgpack.encode(structs.replace(spec, model=structs.replace(spec.model, folder="")), enc_hook=_plain)


def decode_spec(data: bytes) -> EngineSpec:
    """Decode what `encode_spec` made."""
    parts = msgspec.msgpack.decode(data)
    target, packing = msgspec.convert(parts["target"], Target), msgspec.convert(parts["packing"], Packing)
    return EngineSpec(**{**parts, "model": _model(parts["model"]), "target": target, "packing": packing})


def encode_rows(tokens: Tokens, rows: np.ndarray) -> tuple[bytes, bytes]:
    """Encode texts: concatenated ids (int32) and lengths (int64)."""
    parts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]] for row in rows]
    return np.concatenate([np.empty(0, np.int32), *parts]).tobytes(), tokens.lengths[rows].tobytes()


def decode_tokens(ids: bytes, lengths: bytes) -> Tokens:
    """Decode what `encode_rows` made."""
    # Views of the frame, without a copy: nothing writes to tokens.
    counts = np.frombuffer(lengths, np.int64)
    return Tokens(
        ids=np.frombuffer(ids, np.int32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        truncated=np.zeros(len(counts), np.bool_),
    )


def time_request(number: int, work: Work, seconds: float) -> Time:
    """Ask for timed passes over a work."""
    ids, lengths = encode_rows(work.tokens, np.arange(len(work.tokens.truncated)))
    batches = [(batch.rows.astype(np.int64).tobytes(), batch.size, batch.sequence) for batch in work.batches]
    return Time(number, ids, lengths, batches, seconds)


def timed_work(request: Time) -> Work:
    """Decode the work of `time_request`."""
    batches = [
        Batch(rows=np.frombuffer(rows, np.int64), size=size, sequence=sequence)
        for rows, size, sequence in request.batches
    ]
    return Work(tokens=decode_tokens(request.ids, request.lengths), batches=batches)


def _plain(array: object) -> dict[str, Any]:
    if not isinstance(array, np.ndarray):
        raise NotImplementedError(f"a specification holds no {type(array).__name__}")
    return {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}


def _array(plain: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(plain["data"], plain["dtype"]).reshape(plain["shape"])


def _model(plain: dict[str, Any]) -> Model:
    # Model names the types of NumPy for type checkers only, so msgspec cannot convert it.
    canaries = plain["canaries"]
    tokens = Tokens(**{name: _array(value) for name, value in canaries["tokens"].items()})
    return structs.replace(
        Model(**plain),
        graphs={name: msgspec.convert(graph, Graph) for name, graph in plain["graphs"].items()},
        canaries=Canaries(tokens=tokens, vectors=_array(canaries["vectors"])),
    )
