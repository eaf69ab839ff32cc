"""What a run says afterwards of what computed; frozen types, as in `records`."""

from __future__ import annotations

from msgspec import Struct


class SessionFacts(Struct, frozen=True, kw_only=True):
    """One session of a run: its fixed shape (0 x 0: any), nodes on the device and in all (0 of 0: the
    runtime cannot tell), the least cosine of a canary to its vector on the CPU, and the seconds it took
    to open and prove."""

    rows: int
    sequence: int
    nodes_placed: int
    nodes: int
    canary_cosine: float
    seconds: float


class Change(Struct, frozen=True, kw_only=True):
    """One change of the scale of batches: when (seconds since the watch began), from, to, and why."""

    at_s: float
    from_scale: float
    to_scale: float
    reason: str

    @property
    def words(self) -> str:
        """One sentence for people."""
        verb = "shrink" if self.to_scale < self.from_scale else "grow back"
        return f"batches {verb} from {portion(self.from_scale)} to {portion(self.to_scale)}: {self.reason}"


class Point(Struct, frozen=True, kw_only=True, array_like=True):
    """A stretch of time from `at_s` on: the most that was used in it and the least that was free, in bytes; None
    where nothing was known."""

    at_s: float
    used_bytes: int | None
    free_bytes: int | None


class MemoryFacts(Struct, frozen=True, kw_only=True):
    """The memory of a run, as it was watched while it computed; bytes, None where no reading knew.

    source              by which means, and which limit was the tightest at the last look
    scope               whose use is counted: of all processes (machine, device), or of this one (process)
    ceiling_bytes       the size or limit at which what is free ends
    reserve_bytes       what should stay free; below it batches shrink
    samples, unknown    looks, and those of them that did not learn what is free
    reasons             why they did not, or learnt less than all, and how often
    changes             every change of the batches' scale
    series              the readings as a line of at most some hundred points
    """

    source: str
    scope: str
    ceiling_bytes: int | None
    reserve_bytes: int | None
    most_used_bytes: int | None
    least_free_bytes: int | None
    samples: int
    unknown: int
    reasons: dict[str, int]
    changes: list[Change]
    series: list[Point]


class EngineFacts(Struct, frozen=True, kw_only=True):
    """What computed: the provider, its device, precision and sessions, how it was chosen, and the memory (None:
    it was not watched)."""

    provider: str
    device: str
    precision: str
    streams: int
    threads: int
    sessions: list[SessionFacts]
    chosen: str
    memory: MemoryFacts | None = None


def portion(scale: float) -> str:
    """A power of two in (0, 1] as `1/8`, or `full size`."""
    return "full size" if scale >= 1 else f"1/{round(1 / scale)}"
