"""Kept tunings of this machine, and whether one still holds."""

from __future__ import annotations

from embedmill.base.home import homes, read_record
from embedmill.base.results import Tuning

# Two runs in a row this much slower or faster than the tuning found: it does not hold any more.
_DRIFT = 1.33
# So much more memory than at the time allows sizes that were not tried, unless the memory at the time would have held
# the pick so many times.
_MORE, _ROOMY = 2, 4
# With so many times the seconds, a tuning that ended before the first pair is tried once more.
_LONGER = 1.5
# With less of the processor than this, trials measure other programs rather than batches.
_UNDISTURBED = 0.8


def kept_tunings() -> list[Tuning]:
    """Return all kept tunings, the latest first."""
    paths = [path for home in homes() for path in sorted((home / "tuned").glob("*/*.json"))]
    found = [read_record(path, Tuning) for path in paths]
    return sorted((tuning for tuning in found if tuning is not None), key=lambda tuning: tuning.made, reverse=True)


def holds(tuning: Tuning, ceiling_bytes: int | None) -> bool:
    """Return whether runs below `ceiling_bytes` (None: unknown) use a tuning."""
    # Records of earlier versions were never compared with the default.
    return bool(tuning.verdict) and not (drifted(tuning) or outgrown(tuning, ceiling_bytes) or disturbed(tuning))


def drifted(tuning: Tuning) -> bool:
    """Return whether two runs missed the rate alike."""
    # Unknown where the default was never compared, until the first run notes its own.
    shares = [rate / tuning.tokens_per_s for rate in tuning.rates[-2:] if tuning.tokens_per_s]
    return len(shares) == 2 and (max(shares) < 1 / _DRIFT or min(shares) > _DRIFT)


def undecided(tuning: Tuning, time_s: float) -> bool:
    """Return whether `time_s` leaves time for the missing pairs."""
    return tuning.verdict == "not compared" and time_s > _LONGER * tuning.seconds


def outgrown(tuning: Tuning, ceiling_bytes: int | None) -> bool:
    """Return whether memory is too small, or much larger, now."""
    before, peak = tuning.ceiling_bytes, tuning.peak_bytes
    if ceiling_bytes is None or before is None or peak is None:
        return False
    return peak > ceiling_bytes or (before < _ROOMY * peak and ceiling_bytes > _MORE * before)


def disturbed(tuning: Tuning) -> bool:
    """Return whether other programs used the processor during the tuning."""
    return tuning.processor_share is not None and tuning.processor_share < _UNDISTURBED
