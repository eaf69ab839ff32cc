"""Tuning from the first trial to the pick."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from embedmill.base.errors import ConfigError
from embedmill.base.records import IntArray
from embedmill.tune.search.duel import DUEL_PART, compared
from embedmill.tune.search.ladder import LadderSearch
from embedmill.tune.search.space import Space
from embedmill.tune.search.sweep import Sweep
from embedmill.tune.search.trials import Trials
from embedmill.tune.search.types import Limits, Observation, Pick, Trial


def find_pick(space: Space, lengths: IntArray, limits: Limits, observe: Callable[[Trial], Observation]) -> Pick:
    """Return the best batches, compared with the catalogue's default.

    `lengths` int64 [texts] are tokens of the texts; `observe` runs a trial. Raises ConfigError for a space or lengths
    that nothing can be made of, DeviceError where no batch runs below the ceiling.
    """
    if not space.modes or bool(space.budgets_tokens) == bool(space.buckets) or not len(lengths):
        raise ConfigError("tuning needs texts, modes, and either budgets or buckets")
    trials = Trials(lengths, limits, observe)
    finder = (LadderSearch if space.buckets else Sweep)(space, trials, (1 - DUEL_PART) * limits.time_s)
    pick = compared(finder.run(), (space.modes[0], space.default), finder.bound, trials)
    return structs.replace(pick, seconds=trials.seconds, observations=tuple(trials.observed))
