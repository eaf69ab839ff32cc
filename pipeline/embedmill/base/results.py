"""What a run says afterwards of itself; frozen types that hold data and do nothing, as in `records`."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from embedmill.base.records import Bucket, Packing, ShardFile, Stages, Totals


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
    """What computed: the provider, its device, precision and sessions, how it was chosen, the memory (None: it was
    not watched), and why the device was lost, each time that it was; the work went on in a new process then."""

    provider: str
    device: str
    precision: str
    streams: int
    threads: int
    sessions: list[SessionFacts]
    chosen: str
    memory: MemoryFacts | None = None
    losses: list[str] = []


class TrialFacts(Struct, frozen=True, kw_only=True):
    """One trial of a tuning: batches of one kind, run together.

    bucket                   the fixed shape; None: any shape of at most `budget_tokens` padded tokens
    seconds, open_seconds    of the batches, and of opening the session
    peak_bytes               above what was held before the session was opened; None: not known
    failure                  the error; None: it went well
    """

    precision: str
    streams: int
    threads: int
    in_flight: int
    budget_tokens: int
    bucket: Bucket | None
    useful_tokens: int
    padded_tokens: int
    seconds: float
    open_seconds: float
    peak_bytes: int | None
    predicted_peak_bytes: int | None
    failure: str | None


class Tuning(Struct, frozen=True, kw_only=True):
    """Result of a tuning.

    made              when, in ISO 8601
    holds_for         provider, device, drivers, versions, model, options and lengths of texts that were measured
    precision, streams, threads, in_flight, packing   the settings that runs use
    tokens_per_s      expected useful tokens per second; `rates` those of runs since then
    peak_bytes        the most memory that they should need; None where memory is not known
    ceiling_bytes     the most that a trial might need; None likewise
    unproven          buckets that were not run themselves; larger ones were
    seconds, ended    of the tuning, and why it ended
    processor_share   of the processor time that trials could have had, what they got, in the median; None where the
                      processor does not compute
    verdict           why these settings are used: "faster" than the catalogue's default in pairs of runs; "no gain", so
                      that they are that default; "default": it is the best found; "default failed": it cannot run;
                      "not compared", for want of time, so that they are the default; empty in earlier versions
    gain, gain_pairs  rate of the best found over the default's, of each pair of runs, and their median; None without
    """

    made: str
    holds_for: dict[str, str]
    precision: str
    streams: int
    threads: int
    in_flight: int
    packing: Packing
    tokens_per_s: float
    peak_bytes: int | None
    ceiling_bytes: int | None
    unproven: tuple[Bucket, ...]
    seconds: float
    ended: str
    trials: list[TrialFacts]
    rates: list[float] = []
    processor_share: float | None = None
    verdict: str = ""
    gain: float | None = None
    gain_pairs: list[float] = []


class Manifest(Struct, frozen=True, kw_only=True):
    """`_manifest.json`: written last; its presence says that the run is complete.

    `stages` and `engine` are of the run that completed it; `engine` is None where that one embedded nothing.
    """

    version: str
    identity: str
    model: dict[str, Any]
    fingerprint: dict[str, Any]
    totals: Totals
    shards: list[ShardFile]
    environment: dict[str, str]
    stages: Stages
    engine: EngineFacts | None = None


def portion(scale: float) -> str:
    """A power of two in (0, 1] as `1/8`, or `full size`."""
    return "full size" if scale >= 1 else f"1/{round(1 / scale)}"
