"""What is recorded of how a run came to its batches; like `records`, these hold data and do nothing."""

from __future__ import annotations

from msgspec import Struct

from pipeline.records import Bucket, Packing


class TrialFacts(Struct, frozen=True, kw_only=True):
    """One trial of a tuner: batches of one kind, run together.

    `bucket` is None where any shape of at most `budget_tokens` padded tokens ran. The tokens are those of its batches,
    the seconds theirs and those of opening the session; bytes are above what was held before it was opened, None where
    that is not known. `failure` says what went wrong.
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
    """What a tuner found, and for what.

    made              when, in ISO 8601
    holds_for         what it was measured for: provider, device, drivers, versions, model, lengths of the texts
    precision, streams, threads, in_flight, packing   the pick
    tokens_per_s      useful tokens that it should embed per second; `rates` those that runs with it did since
    peak_bytes        what it should need at the most; None where memory is not known
    ceiling_bytes     what no trial was to pass; None likewise
    unproven          buckets of the pick that were not run themselves; larger ones were
    seconds, ended    what tuning took, and why it ended
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
