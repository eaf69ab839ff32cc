"""Types that tuning and the runner of trials exchange."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from embedmill.base.records import Batch, Bucket, Packing
from embedmill.tune.search.space import Knobs, Mode

OUT_OF_MEMORY = "out of memory"
Ended = Literal["settled", "time", "nothing"]
Verdict = Literal["faster", "no gain", "default", "default failed", "not compared"]


class Limits(Struct, frozen=True, kw_only=True):
    """Limits of one tuning.

    ceiling_bytes     no trial may need more; None: the device does not report its memory
    time_s            seconds for all trials, opening sessions included
    expected_tokens   useful tokens of the job, over which opening sessions is paid off; None: endless
    """

    ceiling_bytes: int | None
    time_s: float = 30.0
    expected_tokens: int | None = None


class Trial(Struct, frozen=True, kw_only=True):
    """Batches to run with some knobs.

    All are submitted at once, in order. `batches` hold row numbers of the sample's lengths, some of them more than
    once. `repetition` counts the runs of these knobs from 1. Predictions are 0.0 and None where nothing is known.
    """

    number: int
    knobs: Knobs
    batches: tuple[Batch, ...]
    repetition: int
    useful_tokens: int
    padded_tokens: int
    predicted_peak_bytes: int | None


class Observation(Struct, frozen=True, kw_only=True):
    """Result of a trial.

    seconds         from the first batch's start to the last one's end
    open_seconds    for the session, 0.0 where it was still open
    peak_bytes      the most that batches and session held, above what was taken before that session was opened;
                    None: unknown. It may contain what earlier trials left in the same session.
    failure         None, `OUT_OF_MEMORY`, or another error
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
    """Trial with observation."""

    trial: Trial
    observation: Observation


class Pick(Struct, frozen=True, kw_only=True):
    """Settings to run the job with.

    mode, packing         every setting except the size of a batch; the budget or the ladder
    tokens_per_s          expected useful tokens per second over the whole job
    peak_bytes            expected peak, all sessions of a ladder together; None: unknown
    ended                 settled: nothing is likely to be better by more than the tolerance; time: the time was up;
                          nothing: no other size may be tried
    unproven              buckets of the ladder that were not run themselves; larger ones were
    verdict               how the best found compares with the default, as in `Tuning`
    gains                 ratio of the rate found to the default's, one per pair of runs
    seconds, observations of all trials, in order
    """

    mode: Mode
    packing: Packing
    tokens_per_s: float
    peak_bytes: int | None
    ended: Ended
    unproven: tuple[Bucket, ...] = ()
    verdict: Verdict = "default"
    gains: tuple[float, ...] = ()
    seconds: float = 0.0
    observations: tuple[Observed, ...] = ()
