"""Results of a run: engine, sessions, memory, tuning, manifest."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from embedmill.base.files.sealed import Sealed
from embedmill.base.records import Bucket, Packing


class SessionFacts(Struct, frozen=True, kw_only=True):
    """One session of a run."""

    # The shape; 0 x 0 where any runs.
    rows: int
    sequence: int
    # 0 of 0 where the runtime cannot tell.
    nodes_placed: int
    nodes: int
    canary_cosine: float  # the lowest of a canary to the CPU's vector
    seconds: float  # to open and check the session


class Change(Struct, frozen=True, kw_only=True):
    """One change of the batch scale under memory pressure."""

    at_s: float  # since the watch began
    from_scale: float
    to_scale: float
    reason: str

    @property
    def words(self) -> str:
        """Describe the change in one sentence."""
        verb = "shrink" if self.to_scale < self.from_scale else "grow back"
        return f"batches {verb} from {portion(self.from_scale)} to {portion(self.to_scale)}: {self.reason}"


# As arrays, because a manifest holds hundreds of them.
class Point(Struct, frozen=True, kw_only=True, array_like=True):
    """Most used, least free bytes of an interval; None: unknown."""

    at_s: float
    used_bytes: int | None
    free_bytes: int | None


class MemoryFacts(Struct, frozen=True, kw_only=True):
    """Memory of a run in bytes; None where unknown."""

    source: str  # the interface that was read, and the tightest limit at the last sample
    scope: str  # whose use counts: all processes (machine, device), or this one (process)
    ceiling_bytes: int | None  # the size or limit that free memory is measured against
    reserve_bytes: int | None  # memory to keep free; below it batches shrink
    most_used_bytes: int | None
    least_free_bytes: int | None
    samples: int
    unknown: int  # samples without a figure for free memory
    reasons: dict[str, int]  # causes of missing or incomplete samples, with counts
    changes: list[Change]
    series: list[Point]  # the samples as a line of at most a few hundred points


class EngineFacts(Struct, frozen=True, kw_only=True):
    """Provider, device, precision and sessions of a run."""

    provider: str
    device: str
    precision: str
    streams: int
    threads: int
    sessions: list[SessionFacts]
    chosen: str  # why this provider
    memory: MemoryFacts | None = None  # None where memory was not watched
    losses: list[str] = []  # reason of each device loss, after which a new process continued


class TrialFacts(Struct, frozen=True, kw_only=True):
    """One trial of a tuner: batches of one kind together."""

    precision: str
    streams: int
    threads: int
    in_flight: int
    budget_tokens: int
    bucket: Bucket | None  # None where any shape of at most `budget_tokens` padded tokens ran
    # Of the batches of the trial.
    useful_tokens: int
    padded_tokens: int
    seconds: float
    open_seconds: float  # to open the session
    # Above the bytes held before the session was opened; None where unknown.
    peak_bytes: int | None
    predicted_peak_bytes: int | None
    failure: str | None  # what went wrong


class Tuning(Sealed, frozen=True, kw_only=True):
    """Result of a tuning, and the conditions of measurement."""

    job: str = ""  # digest of `job.json`, in an output
    made: str  # when, in ISO 8601
    holds_for: dict[str, str]  # provider, device, drivers, versions, model, lengths of the texts
    # The settings that runs use.
    precision: str
    streams: int
    threads: int
    in_flight: int
    packing: Packing
    tokens_per_s: float  # useful tokens that they should embed per second; 0.0: not compared, and no run noted a rate
    peak_bytes: int | None  # that they should need at the most; None where memory is unknown
    ceiling_bytes: int | None  # that no trial was to pass; None where memory is unknown
    unproven: tuple[Bucket, ...]  # of the settings, not run themselves; larger ones were
    seconds: float  # that the tuning took
    ended: str  # why the tuning ended
    trials: list[TrialFacts]
    rates: list[float] = field(default_factory=list)  # useful tokens per second of later runs
    # Of the processor time that trials could have had, the share that they got, in the median; None where
    # another device computes.
    processor_share: float | None = None
    # "faster" than the default in pairs of runs; "no gain" or, for want of time, "not compared": the settings
    # are that default; "default": it is the best found; "default failed": it cannot run; empty in earlier versions.
    verdict: str = ""
    gain: float | None = None  # rate of the best found over the default's: the median of the pairs
    gain_pairs: list[float] = field(default_factory=list)


class Manifest(Sealed, frozen=True, kw_only=True):
    """`_manifest.json`, written last: a complete output has one."""

    version: str
    identity: str
    job: str  # digest of `job.json`
    # Digests of the tuning and of the rows set aside; empty where there are none.
    tuning: str = ""
    set_aside: str = ""
    model: dict[str, Any]
    fingerprint: dict[str, Any]
    totals: Totals
    shards: list[ShardFile]
    environment: dict[str, str]
    left_out: dict[str, int] = field(default_factory=dict)  # files of the input's folders that were not read, by kind
    # Of the completing run; no engine where that embedded nothing.
    stages: Stages
    engine: EngineFacts | None = None


# Not frozen: summed up in place.
class Totals(Struct, kw_only=True):
    """Sums over ledger entries, by the fields of `Entry`."""

    shards: int = 0
    rows_read: int = 0
    rows_written: int = 0
    rows_quarantined: int = 0
    rows_skipped: int = 0
    vectors: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    bytes: int = 0


class ShardFile(Struct, frozen=True, kw_only=True):
    """Output file in the manifest."""

    file: str
    rows: int
    bytes: int
    sha256: str
    entry: str  # digest of the ledger entry


# Not frozen: measured while the run goes on.
class Stages(Struct, kw_only=True):
    """Seconds of a run by stage; stages overlap."""

    wall: float = 0.0
    prepare: float = 0.0
    compute: float = 0.0  # summed over streams: nearly `streams` times `wall` where the run is compute-bound
    write: float = 0.0
    streams: int = 0


def counted(count: int, noun: str) -> str:
    """Format 1 row, 2 rows."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def portion(scale: float) -> str:
    """Format a batch scale as `1/8` or `full size`."""
    return "full size" if scale >= 1 else f"1/{round(1 / max(scale, 1e-9))}"
