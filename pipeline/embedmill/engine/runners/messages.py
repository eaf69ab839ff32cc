"""What a process of sessions and its parent say to each other, in MessagePack."""

from __future__ import annotations

from msgspec import Struct

from embedmill.base.results import SessionFacts
from embedmill.engine.runners.base import RunnerFacts


class RunnerOptions(Struct, frozen=True, kw_only=True):
    """How a spec is run: whether memory is watched, the folder of compiled contexts ("": the usual one), and the
    scale above which no batch runs."""

    watched: bool = True
    contexts: str = ""
    most_scale: float = 1.0


class Opening(Struct, frozen=True, kw_only=True):
    """The first frame to the process; `spec` as of `to_bytes`."""

    spec: bytes
    options: RunnerOptions


class Asked(Struct, frozen=True, array_like=True, tag=True):
    """A batch: token ids int32 of its texts end to end, their lengths int64, and the shape it runs in."""

    number: int
    ids: bytes
    lengths: bytes
    size: int
    sequence: int


class Done(Struct, frozen=True, array_like=True, tag=True):
    """The vectors of a batch, float32; the seconds that the process has computed so far; and sessions it opened."""

    number: int
    vectors: bytes
    busy_s: float
    sessions: list[SessionFacts]


class Failed(Struct, frozen=True, array_like=True, tag=True):
    """What became of a batch, or of all (-1), in place of its vectors: the name of an error, and its words."""

    number: int
    error: str
    words: str


class Said(Struct, frozen=True, array_like=True, tag=True):
    """A sentence for people."""

    words: str


class Facts(Struct, frozen=True, array_like=True, tag=True):
    """What the process knows of itself."""

    facts: RunnerFacts


class AskedFacts(Struct, frozen=True, array_like=True, tag=True):
    """Say your facts."""
