"""Which trial comes next."""

from __future__ import annotations

import numpy as np
from msgspec import structs

from embedmill.base.errors import DeviceError
from embedmill.base.records import IntArray, Packing
from embedmill.tune.search.arms import Arms, terms_of
from embedmill.tune.search.checks import LEAST_RUNS, SMALL, Checks
from embedmill.tune.search.least_squares import Bools, Floats
from embedmill.tune.search.memory import Memory
from embedmill.tune.search.objective import Choice, Costs, Objective, OneBudget, OneLadder
from embedmill.tune.search.space import Space
from embedmill.tune.search.surrogate import Surrogate
from embedmill.tune.search.time_spent import Spent
from embedmill.tune.search.types import OUT_OF_MEMORY, Ended, Limits, Observation, Observed, Pick, Trial

_MIB = 1 << 20
_GOLDEN = (5**0.5 - 1) / 2
# Doubts in the order in which they are looked into: standard deviations by which the best choice may be worse, and
# all others better, than they look; and by what part of the time they would have to be better to matter. What may
# be much better comes before what may be a little better.
_DOUBTS = ((2.0, 0.05), (3.0, 0.05), (2.0, 0.02), (3.0, 0.02))
# Standard deviations by which the pick is thought to be worse than it looks, where any shape runs and where shapes are
# fixed: the parts of a ladder are hardly all worse at once.
_CAUTION = {False: 1.0, True: 0.5}
# What would be picked but for parts that have not run is proven once no more time is left than so many times what
# that takes, where it looks better by this part.
_HOPE_RESERVE, _HOPE_GAIN = 3.0, 0.01
# How much the seconds that a trial takes count against what it tells.
_THRIFT = 0.5
# An arm may take this part of the time at once, all runs up to the second one together.
_MOST_PART = 1 / 6
# A trial lasts about this part of the time for all.
_TRIAL_PART = 1 / 150
# Runs in a row go on for as long as opening the session takes, but no more of them than this.
_VISIT_RUNS = 4


class Tuner:
    """Trials out, observations in; `pick` has an answer at any time."""

    def __init__(self, space: Space, lengths: IntArray, limits: Limits, *, seed: int = 0) -> None:
        """`lengths` int64 [texts]: tokens of the texts that trials may run; `seed` decides which of them do.

        Raises ConfigError for a space or lengths that nothing can be made of, DeviceError where not even the
        smallest batch fits under the ceiling.
        """
        self._arms = Arms(space, lengths)
        self._limits = limits
        self._offset = float(np.random.default_rng(seed).random())
        self._memory = Memory(self._arms, np.inf if limits.ceiling_bytes is None else limits.ceiling_bytes)
        self._surrogate = Surrogate(self._arms)
        self._spent = Spent(self._arms)
        tokens = float(limits.expected_tokens) if limits.expected_tokens is not None else np.inf
        self._objective: Objective = OneLadder(self._arms, tokens) if self._arms.fixed else OneBudget(tokens)
        self._checks = Checks(self._arms, limits.time_s)
        self._runs = np.zeros(len(self._arms), np.int64)
        self._caution = _CAUTION[self._arms.fixed]
        self._broken = np.zeros(len(self._arms), bool)
        self._observed: list[Observed] = []
        self._last: int | None = None
        self._visit = 0
        self._pending: Trial | None = None
        self._ended: Ended = ""
        if not self._memory.allowed().any():
            raise DeviceError(self._no_room())

    def next(self) -> Trial | None:
        """The next trial; None when tuning has ended. Raises ValueError where the last one was not observed."""
        if self._pending is not None:
            raise ValueError("the last trial has not been observed yet")
        if not self._ended and len(self._observed) >= self._limits.trials:
            self._ended = "trials"
        if self._ended:
            return None
        chosen = self._choose()
        if isinstance(chosen, str):
            self._ended = chosen
            return None
        self._visit = self._visit + 1 if chosen == self._last else 1
        self._last = chosen
        self._pending = self._trial(chosen)
        return self._pending

    def observe(self, trial: Trial, observation: Observation) -> None:
        """What came of the trial that `next` gave. Raises ValueError for any other."""
        if self._pending is not trial or self._last is None:
            raise ValueError("this is not the trial that is waited for")
        arm, self._pending = self._last, None
        self._observed.append(Observed(trial=trial, observation=observation))
        self._spent.observe(arm, trial, observation)
        if observation.ceiling_bytes is not None:
            self._memory.ceiling = observation.ceiling_bytes
        if observation.failure == OUT_OF_MEMORY:
            self._memory.refuse(arm)
        elif observation.failure is not None:
            mode = self._arms.mode == self._arms.mode[arm]
            self._broken |= mode if not self._runs[mode].any() else np.arange(len(mode)) == arm
        else:
            self._runs[arm] += 1
            self._memory.observe(arm, observation.peak_bytes)
            seconds = self._spent.warm_seconds(trial, observation)
            self._surrogate.observe(arm, seconds, terms_of(trial.batches), trial.knobs.mode.streams)

    def pick(self) -> Pick:
        """The best of what ran twice and of what demands less; before any run the smallest size.

        Raises DeviceError where nothing ran, or nothing that ran fits any more.
        """
        fitting = self._fitting()
        if not (self._runs > 0).any():
            starts = [int(arm) for arm in self._arms.first if fitting[arm]]
            if self._observed or not starts:
                raise DeviceError(self._no_room())
            return self._as_pick((starts[0],), 0.0)
        mean, deviation = self._surrogate.posterior()
        costs = self._costs(mean + self._caution * deviation, self._served() & fitting)
        best = self._objective.best(costs)
        if best is None:
            raise DeviceError(self._no_room())
        likely = structs.replace(costs, seconds=np.exp(mean))
        return self._as_pick(best.arms, 1.0 / self._objective.seconds_per_token(best.arms, likely))

    def _choose(self) -> int | Ended:
        """The arm to run next, or why none is."""
        allowed = self._memory.allowed() & ~self._broken
        if not (self._runs > 0).any():
            starts = [int(arm) for arm in self._arms.first if allowed[arm]]
            return starts[0] if starts else "nothing"
        mean, deviation = self._surrogate.posterior()
        most = np.where(self._runs > 0, np.inf, self._limits.time_s * _MOST_PART)
        left = self._limits.time_s - self._spent.seconds
        affordable = self._predicted(mean + deviation) <= np.minimum(most, left)
        last = self._last
        if last is not None and allowed[last] and self._runs[last] > 0:
            if self._runs[last] < LEAST_RUNS:
                return last if affordable[last] else "time"
            if affordable[last] and self._visit < self._visit_runs(mean)[last]:
                return last
        return self._most_telling(mean, deviation, allowed, affordable)

    def _most_telling(self, mean: Floats, deviation: Floats, allowed: Bools, affordable: Bools) -> int | Ended:
        """The arm whose time says most about which choice is best, or why none is worth it.

        The choice that looks best is held against the best one there could be if its own arms were as slow,
        and all others as fast, as they may be; of the arms in which the two differ, the one that is least
        known for its share of the time is run (CLUCB: Chen et al., Combinatorial Pure Exploration of Multi-Armed
        Bandits, NIPS 2014, algorithm 1; for single arms LUCB: Kalyanakrishnan et al., ICML 2012).
        """
        known = self._runs >= LEAST_RUNS
        mine = self._costs(mean + self._caution * deviation, self._served() & self._fitting())
        stones = self._memory.stones(allowed & affordable)
        within = (allowed & affordable) | (stones >= 0) & ~self._broken | known & self._fitting()
        costs = structs.replace(self._costs(mean, within), peak_bytes=self._memory.least())
        best = self._objective.best(mine) or self._objective.best(costs)
        if best is None:
            return "nothing"
        check = self._checks.next(best, self._runs, self._spent.seconds, allowed & affordable, self._predicted(mean))
        if check is not None:
            return check
        hoped = self._hoped(best, mean, deviation, allowed & affordable)
        if hoped is not None:
            return hoped
        for width, tolerance in _DOUBTS:
            shares = self._telling(best, costs, width * deviation, tolerance)
            runnable = [arm for arm in shares if stones[arm] >= 0 or (allowed[arm] and affordable[arm])]
            if runnable:
                break
        else:
            return "time" if shares else "settled"
        learnt = deviation - deviation / np.hypot(deviation / self._surrogate.noise, 1.0)
        worth = learnt / self._predicted(mean) ** _THRIFT
        most = max(runnable, key=lambda arm: float(worth[arm]) * shares[arm])
        return most if allowed[most] else int(stones[most])

    def _hoped(self, best: Choice, mean: Floats, deviation: Floats, runnable: Bools) -> int | None:
        """The largest part not run yet of what looks best of all that may be picked, once the time for it is short;
        None where that is hardly better than `best`, which rests on what ran, or cannot be proven any more."""
        served = self._served() & self._fitting()
        hope = self._objective.best(self._costs(mean + self._caution * deviation, runnable | served))
        if hope is None or hope.seconds_per_token > best.seconds_per_token * (1 - _HOPE_GAIN):
            return None
        unseen = {arm: share for arm, share in zip(hope.arms, hope.shares, strict=True) if not served[arm]}
        needed = float(self._predicted(mean)[list(unseen)].sum())
        left = self._limits.time_s - self._spent.seconds
        if not unseen or not needed <= left <= _HOPE_RESERVE * needed:
            return None
        return max(unseen, key=lambda arm: unseen[arm])

    def _telling(self, best: Choice, costs: Costs, doubt: Floats, tolerance: float) -> dict[int, float]:
        """Arms that decide between the best choice and its rival, with their shares of the time; those of the best
        that are not known yet, where there is no rival that may be better by more than the tolerance."""
        mine = np.isin(np.arange(len(doubt)), best.arms)
        doubted = structs.replace(costs, seconds=costs.seconds * np.exp(np.where(mine, doubt, -doubt)))
        rival = self._objective.best(doubted) or best
        worst = self._objective.seconds_per_token(best.arms, doubted)
        shares = dict(zip((*rival.arms, *best.arms), (*rival.shares, *best.shares), strict=True))
        telling = {arm for arm in best.arms if self._runs[arm] < LEAST_RUNS and shares[arm] > SMALL}
        if rival.seconds_per_token < worst * (1 - tolerance):
            telling |= set(best.arms) ^ set(rival.arms)
        return {arm: shares[arm] for arm in sorted(telling)}

    def _costs(self, logs: Floats, usable: Bools) -> Costs:
        return Costs(
            seconds=np.where(usable, np.exp(logs), np.inf),
            once=self._spent.once(),
            peak_bytes=np.where(usable, self._memory.bounds(), np.inf),
            ceiling=self._memory.limit,
        )

    def _served(self) -> Bools:
        """Arms that a pick may be made of: what ran twice, and fixed shapes that demand no more."""
        known = self._runs >= LEAST_RUNS if (self._runs >= LEAST_RUNS).any() else self._runs > 0
        return known | self._memory.dominated() if self._arms.fixed else known

    def _fitting(self) -> Bools:
        """Arms that may be picked: bool [n]."""
        return self._memory.allowed() & ~self._broken

    def _batch_seconds(self, logs: Floats) -> Floats:
        """Seconds per batch, float64 [n], from logarithms of seconds per unit."""
        return np.exp(logs) / (1.0 if self._arms.fixed else self._arms.terms[:, 1])

    def _predicted(self, logs: Floats) -> Floats:
        """Seconds until each arm has run once more, and at least twice: float64 [n]."""
        left = np.maximum(LEAST_RUNS - self._runs, 1)
        return self._spent.predicted(self._batch_seconds(logs), left, self._limits.time_s * _TRIAL_PART)

    def _visit_runs(self, logs: Floats) -> IntArray:
        """How often each arm runs before another may: int64 [n]."""
        trial_s = np.maximum(self._limits.time_s * _TRIAL_PART, self._batch_seconds(logs))
        return np.clip(np.round(self._spent.opening() / trial_s), 1, _VISIT_RUNS).astype(np.int64)

    def _trial(self, arm: int) -> Trial:
        seconds = float(self._batch_seconds(self._surrogate.posterior()[0])[arm]) if self._runs.any() else 0.0
        runs, bound = int(self._runs[arm]), self._memory.bounds()[arm]
        wanted = round(self._limits.time_s * _TRIAL_PART / seconds) if seconds and runs else 0
        # Other batches each time, as evenly as can be (by the golden ratio), so that no choice of them stays.
        batches = self._arms.sample(arm, wanted, runs=runs, offset=(self._offset + _GOLDEN * runs) % 1.0)
        return Trial(
            number=len(self._observed),
            knobs=self._arms.knobs[arm],
            batches=batches,
            repetition=runs + 1,
            useful_tokens=sum(int(self._arms.lengths[batch.rows].sum()) for batch in batches),
            padded_tokens=sum(batch.size * batch.sequence for batch in batches),
            predicted_seconds=seconds * self._surrogate.average_batches(arm, terms_of(batches)),
            predicted_peak_bytes=int(bound) if np.isfinite(self._memory.ceiling) else None,
        )

    def _as_pick(self, arms: tuple[int, ...], tokens_per_s: float) -> Pick:
        knobs = [self._arms.knobs[arm] for arm in arms]
        buckets = tuple(one.bucket for one in knobs if one.bucket is not None)
        told = any(one.observation.peak_bytes is not None for one in self._observed)
        return Pick(
            mode=knobs[0].mode,
            packing=Packing(budget_tokens=max(one.budget_tokens for one in knobs), buckets=buckets),
            tokens_per_s=tokens_per_s,
            peak_bytes=int(self._memory.bounds()[list(arms)].sum()) if told else None,
            open_seconds=float(self._spent.opening()[list(arms)].sum()),
            unproven=tuple(bucket for arm, bucket in zip(arms, buckets, strict=False) if self._runs[arm] < LEAST_RUNS),
            seconds=self._spent.seconds,
            ended=self._ended,
            observations=tuple(self._observed),
        )

    def _no_room(self) -> str:
        failures = [one.observation.failure for one in self._observed if one.observation.failure]
        if failures and failures[-1] != OUT_OF_MEMORY:
            return f"no trial ended well, the last one with: {failures[-1]}"
        least = int(np.argmin(np.where(self._memory.bounds() > 0, self._memory.bounds(), np.inf)))
        knobs, need = self._arms.knobs[least], self._memory.bounds()[least]
        return (
            f"no batch fits: the smallest one ({knobs.mode.precision}, {int(self._arms.demand[least, 1])} padded"
            f" tokens) needs up to {need / _MIB:.0f} MiB and {self._memory.limit / _MIB:.0f} MiB may be used;"
            " free memory, allow more of it, or choose a smaller model"
        )
