"""Results of a run: engine, sessions, memory, tuning, manifest."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from embedmill.base.records import Bucket, Packing


class SessionFacts(Struct, frozen=True, kw_only=True):
    """One session of a run.

    The shape is 0 x 0 where any runs, nodes 0 of 0 where the runtime cannot tell; `canary_cosine` is
    the lowest of a canary to the CPU's vector, `seconds` the time to open and check the session.
    """

    rows: int
    sequence: int
    nodes_placed: int
    nodes: int
    canary_cosine: float
    seconds: float


class Change(Struct, frozen=True, kw_only=True):
    """One change of the batch scale under memory pressure."""

    # Seconds since the watch began.
    at_s: float
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
    """Memory of a run in bytes; None where unknown.

    source              the interface that was read, and the tightest limit at the last sample
    scope               whose use counts: all processes (machine, device), or this one (process)
    ceiling_bytes       the size or limit that free memory is measured against
    reserve_bytes       memory to keep free; below it batches shrink
    samples, unknown    number of samples, and of those without a figure for free memory
    reasons             causes of missing or incomplete samples, with counts
    changes             every change of the batch scale
    series              the samples as a line of at most a few hundred points
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
    """Provider, device, precision and sessions of a run.

    `chosen` says why this provider; `memory` is None where memory was not watched; `losses` holds the
    reason of each device loss, after which the work continued in a new process.
    """

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
    """`_manifest.json`, written last: a complete output has one.

    `stages` and `engine` are of the completing run; `engine` is None where that embedded nothing.
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


class Stages(Struct, kw_only=True):
    """Seconds of a run by stage.

    `compute` is summed over streams; the stages overlap, and the run is
    compute-bound where `compute` is nearly `streams` times `wall`.
    """

    wall: float = 0.0
    prepare: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    streams: int = 0


def portion(scale: float) -> str:
    """Format a batch scale as `1/8` or `full size`."""
    return "full size" if scale >= 1 else f"1/{round(1 / scale)}"


# Not frozen: summed up in place.


# Not frozen: measured while the run goes on.
