"""The tunings that were kept on this machine, and whether one still holds."""

from __future__ import annotations

from embedmill.base.home import home_folder, read_record
from embedmill.base.results import Tuning

# Two runs in a row that embed this much slower or faster than was found say that it does not hold any more.
_DRIFT = 1.33
# Memory that is this much more than there was allows sizes that were not tried; unless what there was would have held
# the pick so many times.
_MORE, _ROOMY = 2, 4
# With less of the processor than this, trials tell what else ran rather than which batches are best.
_UNDISTURBED = 0.8


def kept_tunings() -> list[Tuning]:
    """All that was kept on this machine, the latest first."""
    found = [read_record(path, Tuning) for path in sorted((home_folder() / "tuned").glob("*/*.json"))]
    return sorted((tuning for tuning in found if tuning is not None), key=lambda tuning: tuning.made, reverse=True)


def holds(tuning: Tuning, ceiling_bytes: int | None) -> bool:
    """Whether a run uses it, where it may take up to `ceiling_bytes` of memory (None: not known)."""
    return not (drifted(tuning) or outgrown(tuning, ceiling_bytes) or disturbed(tuning))


def drifted(tuning: Tuning) -> bool:
    """Whether the last two runs were both much slower, or both much faster, than was found."""
    shares = [rate / max(tuning.tokens_per_s, 1e-9) for rate in tuning.rates[-2:]]
    return len(shares) == 2 and (max(shares) < 1 / _DRIFT or min(shares) > _DRIFT)


def outgrown(tuning: Tuning, ceiling_bytes: int | None) -> bool:
    """Whether there is too little memory for it now, or so much more that larger sizes may be tried."""
    before, peak = tuning.ceiling_bytes, tuning.peak_bytes
    if ceiling_bytes is None or before is None or peak is None:
        return False
    return peak > ceiling_bytes or (before < _ROOMY * peak and ceiling_bytes > _MORE * before)


def disturbed(tuning: Tuning) -> bool:
    """Whether other programs used the processor while it was made."""
    return tuning.processor_share is not None and tuning.processor_share < _UNDISTURBED
