"""What a tuner and those who run its trials say to each other."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from embedmill.base.records import Batch, Bucket, Packing
from embedmill.tune.search.space import Knobs, Mode

OUT_OF_MEMORY = "out of memory"
Ended = Literal["settled", "time", "trials", "nothing", ""]


class Limits(Struct, frozen=True, kw_only=True):
    """What tuning may take.

    ceiling_bytes     no trial may need more; None: the device does not tell its memory
    time_s            seconds for all trials, opened sessions included
    trials            how many at most
    expected_tokens   useful tokens of the job, over which sessions and compiled shapes are paid off; None: endless
    """

    ceiling_bytes: int | None
    time_s: float = 30.0
    trials: int = 400
    expected_tokens: int | None = None


class Trial(Struct, frozen=True, kw_only=True):
    """Run these batches with these knobs, all of them handed over at once, in their order.

    `batches` hold row numbers of the lengths that the tuner was given, some of them more than once.
    `repetition` counts the runs of these knobs from 1; `useful_tokens` and `padded_tokens` are those of
    `batches`. The predictions are 0.0 and None where nothing is known yet.
    """

    number: int
    knobs: Knobs
    batches: tuple[Batch, ...]
    repetition: int
    useful_tokens: int
    padded_tokens: int
    predicted_seconds: float
    predicted_peak_bytes: int | None


class Observation(Struct, frozen=True, kw_only=True):
    """What came of a trial.

    seconds         from the first batch's start to the last one's end
    open_seconds    for the session, 0.0 where it was still open
    peak_bytes      the most that all of the trial's batches and its session held, above what was taken before
                    that session was opened; None: unknown. It may contain what earlier trials left in the
                    same session, never anything of another.
    failure         None, `OUT_OF_MEMORY`, or what else went wrong
    ceiling_bytes   the ceiling from now on, where other processes changed it
    processor_share of the processor time that its threads could have had, what they got; None: they mostly wait
    """

    seconds: float = 0.0
    open_seconds: float = 0.0
    peak_bytes: int | None = None
    failure: str | None = None
    ceiling_bytes: int | None = None
    processor_share: float | None = None


class Observed(Struct, frozen=True, kw_only=True):
    """A trial and what came of it."""

    trial: Trial
    observation: Observation


class Pick(Struct, frozen=True, kw_only=True):
    """What to run the job with.

    mode                  precision, streams, threads, in-flight batches
    packing               the budget or the ladder
    tokens_per_s          expected useful tokens per second over the whole job; 0.0 where nothing was measured
    peak_bytes            expected peak, all sessions of a ladder together; None: unknown
    open_seconds          expected to open the sessions
    unproven              buckets of the ladder that were not run themselves; larger ones were
    seconds               spent on trials
    ended                 settled: nothing is likely to be better by more than the tolerance;
                          time, trials: a limit was reached; nothing: no other size may be tried
    observations          every trial, in order
    """

    mode: Mode
    packing: Packing
    tokens_per_s: float
    peak_bytes: int | None
    open_seconds: float
    unproven: tuple[Bucket, ...]
    seconds: float
    ended: Ended
    observations: tuple[Observed, ...]
