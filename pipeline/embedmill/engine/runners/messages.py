"""Wire protocol between a runner and its host, in MessagePack.

No message holds a path: a model is named by the sha256 of its files, and the host says which of them it lacks.
"""

from __future__ import annotations

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


class Message(Struct, frozen=True, array_like=True, tag=True):
    """Base of all messages; `number` tells which request a reply answers."""

    number: int


class ListDevices(Message, frozen=True, tag=True):
    """Request: the devices of a provider. Reply: Devices."""

    provider: Provider


class Open(Message, frozen=True, tag=True):
    """Request: open a specification (`encode_spec`). Reply: Opened, or MissingFiles."""

    spec: bytes
    options: RunnerOptions


class SendFile(Message, frozen=True, tag=True):
    """Part of a file that the host lacks, `number` as in Open; `last` after all files. Reply: that of Open."""

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
    """Request: passes over several batches for at least `seconds`, once at least. Reply: Timed.

    `ids` and `lengths` as in Run; a batch is its rows as int64, its size and its sequence.
    """

    ids: bytes
    lengths: bytes
    batches: list[tuple[bytes, int, int]]
    seconds: float


class Multiply(Message, frozen=True, tag=True):
    """Request: the fastest run of a graph of matrix products on the target that is open. Reply: Multiplied."""

    graph: bytes


class GetFacts(Message, frozen=True, tag=True):
    """Request: the facts so far. Reply: Facts."""


class Devices(Message, frozen=True, tag=True):
    """Reply: devices in the runtime's order."""

    devices: list[Device]


class MissingFiles(Message, frozen=True, tag=True):
    """Reply: files of the model that the host lacks, and waits for."""

    names: list[str]


class Opened(Message, frozen=True, tag=True):
    """Reply: sessions may be used; `ceiling_bytes` of memory were there for them (None: not measured)."""

    ceiling_bytes: int | None


class Done(Message, frozen=True, tag=True):
    """Reply: vectors of a batch (float32), seconds computed so far, and sessions opened meanwhile."""

    vectors: bytes
    busy_s: float
    sessions: list[SessionFacts]


class Timed(Message, frozen=True, tag=True):
    """Reply: passes, the seconds of all, the processor seconds of the process in them, and its peak memory.

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
    """Reply: facts of the runner, and its peak memory (None: not measured)."""

    facts: RunnerFacts
    peak: PeakUsage | None


class Failed(Message, frozen=True, tag=True):
    """Reply in place of any other: the class name of an error, and its message."""

    error: str
    message: str


class Notice(Message, frozen=True, tag=True):
    """News for people; answers nothing."""

    text: str


Request = ListDevices | Open | SendFile | Run | Time | Multiply | GetFacts
Reply = Devices | MissingFiles | Opened | Done | Timed | Multiplied | Facts | Failed | Notice


def decode_request(frame: bytes) -> Request:
    """Decode what a host receives."""
    request: Request = msgspec.msgpack.decode(frame, type=Request)
    return request


def decode_reply(frame: bytes) -> Reply:
    """Decode what a runner receives."""
    reply: Reply = msgspec.msgpack.decode(frame, type=Reply)
    return reply


def encode_spec(spec: EngineSpec) -> bytes:
    """Encode a specification for another process; the folder of its model stays behind."""
    return msgspec.msgpack.encode(structs.replace(spec, model=structs.replace(spec.model, folder="")), enc_hook=_plain)


def decode_spec(data: bytes) -> EngineSpec:
    """Decode what `encode_spec` made."""
    parts = msgspec.msgpack.decode(data)
    target, packing = msgspec.convert(parts["target"], Target), msgspec.convert(parts["packing"], Packing)
    return EngineSpec(**{**parts, "model": _model(parts["model"]), "target": target, "packing": packing})


def encode_rows(tokens: Tokens, rows: np.ndarray) -> tuple[bytes, bytes]:
    """Encode some texts: their ids (int32) end to end, and their lengths (int64)."""
    parts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]] for row in rows]
    return np.concatenate([np.empty(0, np.int32), *parts]).tobytes(), tokens.lengths[rows].tobytes()


def decode_tokens(ids: bytes, lengths: bytes) -> Tokens:
    """Decode what `encode_rows` made."""
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


def timed_work(asked: Time) -> Work:
    """Decode the work of `time_request`."""
    batches = [
        Batch(rows=np.frombuffer(rows, np.int64), size=size, sequence=sequence)
        for rows, size, sequence in asked.batches
    ]
    return Work(tokens=decode_tokens(asked.ids, asked.lengths), batches=batches)


def _plain(array: object) -> dict[str, Any]:
    if not isinstance(array, np.ndarray):
        raise NotImplementedError(f"a specification holds no {type(array).__name__}")
    return {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}


def _array(plain: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(plain["data"], plain["dtype"]).reshape(plain["shape"])


def _model(plain: dict[str, Any]) -> Model:
    # The types of Model name those of NumPy for type checkers only, so that msgspec cannot convert it by itself.
    canaries = plain["canaries"]
    tokens = Tokens(**{name: _array(value) for name, value in canaries["tokens"].items()})
    return structs.replace(
        Model(**plain),
        graphs={name: msgspec.convert(graph, Graph) for name, graph in plain["graphs"].items()},
        canaries=Canaries(tokens=tokens, vectors=_array(canaries["vectors"])),
    )
