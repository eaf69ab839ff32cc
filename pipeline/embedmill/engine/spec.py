"""What a runner computes with, wherever it does; and itself as bytes, for a process of its own."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs

from embedmill.base.config import EngineTable
from embedmill.base.records import Canaries, Graph, Model, Packing, Tokens
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.target import Target


class EngineSpec(Struct, frozen=True, kw_only=True):
    """A model on a target, the shapes that go there, and the user's options.

    Where batches take turns, `in_flight` of them are there at once: the next is padded while one computes.
    """

    model: Model
    target: Target
    packing: Packing
    config: EngineTable
    in_flight: int = 2

    @property
    def streams(self) -> int:
        """Batches that compute at once."""
        side_by_side = self.target.provider.runs == "cores"
        return (self.config.streams or usable_cores()) if side_by_side else 1

    @property
    def threads(self) -> int:
        """Threads inside each batch."""
        return self.config.threads or max(1, usable_cores() // self.streams)

    @property
    def lanes(self) -> int:
        """Batches that are handed over at once."""
        return self.streams if self.target.provider.runs == "cores" else self.in_flight


def to_bytes(spec: EngineSpec) -> bytes:
    """A spec for another process on this machine."""
    return msgspec.msgpack.encode(spec, enc_hook=_plain)


def from_bytes(data: bytes) -> EngineSpec:
    """The spec of `to_bytes`."""
    parts = msgspec.msgpack.decode(data)
    convert = msgspec.convert
    return EngineSpec(
        model=_model(parts["model"]),
        target=convert(parts["target"], Target),
        packing=convert(parts["packing"], Packing),
        config=convert(parts["config"], EngineTable),
        in_flight=parts["in_flight"],
    )


def _plain(array: object) -> dict[str, Any]:
    if not isinstance(array, np.ndarray):
        raise NotImplementedError(f"a spec holds no {type(array).__name__}")
    return {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}


def _array(plain: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(plain["data"], plain["dtype"]).reshape(plain["shape"])


def _model(plain: dict[str, Any]) -> Model:
    """Its types name NumPy's only for type checkers, so that msgspec cannot read them."""
    canaries = plain["canaries"]
    tokens = Tokens(**{name: _array(value) for name, value in canaries["tokens"].items()})
    return structs.replace(
        Model(**plain),
        graphs={name: msgspec.convert(graph, Graph) for name, graph in plain["graphs"].items()},
        canaries=Canaries(tokens=tokens, vectors=_array(canaries["vectors"])),
    )
