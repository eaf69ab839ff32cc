"""Search for a ladder: CLUCB over a Gaussian process."""

from __future__ import annotations

import numpy as np
from msgspec import structs

from embedmill.base.errors import DeviceError
from embedmill.base.records import Packing
from embedmill.tune.search.arms import Arms, least_batches
from embedmill.tune.search.least_squares import Bools, Floats
from embedmill.tune.search.memory import LEAST_RUNS, Memory
from embedmill.tune.search.objective import CostedLadder, Costs, Objective
from embedmill.tune.search.space import Knobs, Space, knobs_of
from embedmill.tune.search.surrogate import Surrogate
from embedmill.tune.search.trials import TRIAL_PART, Trials
from embedmill.tune.search.types import OUT_OF_MEMORY, Ended, Pick

# Nothing that takes more of the time than this is picked unproven while there is time to run it.
_SMALL = 0.03
# Standard deviations by which the best ladder may be worse, and all others better, than they look; and by what part of
# the time they would have to be better to matter.
_DOUBT, _TOLERANCE = 2.0, 0.02
# Standard deviations by which the pick is thought to be worse than it looks: its parts are hardly all worse at once.
_CAUTION = 0.5
# How much the seconds that a trial takes count against what it tells.
_THRIFT = 0.5
# An arm may take this part of the time at once, all runs up to the second one together.
_MOST_PART = 1 / 6
# Trials may take longer than expected by this much.
_ALLOWANCE = 1.15
# Runs in a row go on for as long as opening the session takes, but no more of them than this.
_VISIT_RUNS = 4


class LadderSearch:
    """Trials of the shapes that decide which ladder is best."""

    def __init__(self, space: Space, trials: Trials, time_s: float) -> None:
        """Take `time_s` seconds of what `trials` have left.

        Raises ConfigError for lengths that no bucket holds.
        """
        self._arms = Arms(space, trials.lengths)
        self._trials, self._time_s = trials, time_s
        self._memory = Memory(self._arms, trials.ceiling)
        self._runs = self._memory.runs
        self._surrogate = Surrogate(self._arms)
        self._objective = Objective(self._arms, float(trials.limits.expected_tokens or np.inf))
        self._least_batches = np.array([least_batches(one) for one in self._arms.knobs])
        self._broken = np.zeros(len(self._arms), bool)
        default = knobs_of(space.modes[0], space.default)
        self._default = [arm for arm, knobs in enumerate(self._arms.knobs) if knobs in default]
        self._last, self._visit = -1, 0

    def run(self) -> Pick:
        """Run trials to the end and return the best ladder.

        It is made of what ran twice and of what demands less. Raises DeviceError where nothing ran below the ceiling.
        """
        while not isinstance(chosen := self._choose(), str):
            self._run(chosen)
        self._prove_default()
        best = self._objective.best(self._cautious()) if self._runs.any() else None
        if best is None:
            least = int(np.argmin(np.where(self._memory.bounds() > 0, self._memory.bounds(), np.inf)))
            mode, tokens = self._arms.knobs[least].mode, float(self._arms.demand[least, 1])
            raise DeviceError(self._trials.no_room(mode, tokens, float(self._memory.bounds()[least])))
        likely = structs.replace(self._cautious(), seconds=np.exp(self._surrogate.posterior()[0]))
        arms, buckets = list(best.arms), tuple(self._arms.buckets[arm] for arm in best.arms)
        return Pick(
            mode=self._arms.knobs[arms[0]].mode,
            packing=Packing(budget_tokens=max(self._arms.knobs[arm].budget_tokens for arm in arms), buckets=buckets),
            tokens_per_s=1.0 / self._objective.seconds_per_token(best.arms, likely),
            peak_bytes=int(self._memory.bounds()[arms].sum()) if self._trials.know_memory else None,
            unproven=tuple(bucket for arm, bucket in zip(arms, buckets, strict=True) if self._runs[arm] < LEAST_RUNS),
            ended=chosen,
        )

    def bound(self, knobs: Knobs) -> float:
        """Return the most bytes of a shape, infinite where forbidden."""
        arm = self._arms.knobs.index(knobs) if knobs in self._arms.knobs else None
        return np.inf if arm is None or not self._fitting()[arm] else float(self._memory.bounds()[arm])

    def _prove_default(self) -> None:
        """Run smaller shapes until the default's may run."""
        for arm in self._default:
            while not self._fitting()[arm]:
                stone = int(self._memory.stones(self._fitting())[arm])
                if stone < 0:
                    break
                self._run(stone)

    def _run(self, arm: int) -> None:
        self._visit = self._visit + 1 if arm == self._last else 1
        seconds = float(self._seconds()[arm]) if self._runs.any() else 0.0
        wanted = round(self._time_s * TRIAL_PART / seconds) if seconds and self._runs[arm] else 0
        batches = self._arms.batches(arm, wanted, first=self._runs[arm] == 0)
        bound = float(self._memory.bounds()[arm])
        _, observation = self._trials.run(self._arms.knobs[arm], batches, peak_bytes=bound)
        self._last, self._memory.ceiling = arm, self._trials.ceiling
        if observation.failure == OUT_OF_MEMORY:
            self._memory.refuse(arm)
        elif observation.failure is not None:
            mode = self._arms.mode == self._arms.mode[arm]
            self._broken |= mode if not self._runs[mode].any() else np.arange(len(mode)) == arm
        else:
            self._memory.observe(arm, observation.peak_bytes)
            self._surrogate.observe(arm, observation.seconds / len(batches))

    def _choose(self) -> int | Ended:
        """Return the next arm, or why there is none."""
        allowed = self._fitting()
        if not self._runs.any():
            starts = [int(arm) for arm in self._arms.first if allowed[arm]]
            return starts[0] if starts else "nothing"
        deviation, last = self._surrogate.posterior()[1], self._last
        most = np.where(self._runs > 0, np.inf, self._time_s * _MOST_PART)
        left = self._time_s - self._trials.seconds
        affordable = self._predicted(deviation) <= np.minimum(most, left)
        if allowed[last] and self._runs[last] > 0:
            if self._runs[last] < LEAST_RUNS:
                return last if affordable[last] else "time"
            trial_s = max(self._time_s * TRIAL_PART, float(self._seconds()[last]))
            if affordable[last] and self._visit < min(round(self._trials.opening / trial_s), _VISIT_RUNS):
                return last
        return self._most_telling(allowed, affordable)

    def _most_telling(self, allowed: Bools, affordable: Bools) -> int | Ended:
        """Return the arm that says most about the best ladder.

        The ladder that looks best is held against the best one there could be if its own arms were as slow,
        and all others as fast, as they may be; of the arms in which the two differ, the one that is least
        known for its share of the time is run (CLUCB: Chen et al., Combinatorial Pure Exploration of Multi-Armed
        Bandits, NIPS 2014, algorithm 1; for single arms LUCB: Kalyanakrishnan et al., ICML 2012).
        """
        mean, deviation = self._surrogate.posterior()
        stones = self._memory.stones(allowed & affordable)
        within = (allowed & affordable) | (stones >= 0) & ~self._broken | (self._runs >= LEAST_RUNS) & allowed
        costs = structs.replace(self._costs(mean, within), peak_bytes=self._memory.least())
        best = self._objective.best(self._cautious()) or self._objective.best(costs)
        if best is None:
            return "nothing"
        shares = self._telling(best, costs, _DOUBT * deviation)
        runnable = [arm for arm in shares if stones[arm] >= 0 or (allowed[arm] and affordable[arm])]
        if not runnable:
            return "time" if shares else "settled"
        learnt = deviation - deviation / np.hypot(deviation / self._surrogate.noise, 1.0)
        worth = learnt / self._predicted(0.0) ** _THRIFT
        most = max(runnable, key=lambda arm: float(worth[arm]) * shares[arm])
        return most if allowed[most] else int(stones[most])

    def _telling(self, best: CostedLadder, costs: Costs, doubt: Floats) -> dict[int, float]:
        """Return arms that decide between best and rival, with shares.

        Where no rival may be better by more than the tolerance, they are those of the best that have not run.
        """
        mine = np.isin(np.arange(len(doubt)), best.arms)
        doubted = structs.replace(costs, seconds=costs.seconds * np.exp(np.where(mine, doubt, -doubt)))
        rival = self._objective.best(doubted) or best
        worst = self._objective.seconds_per_token(best.arms, doubted)
        shares = dict(zip((*rival.arms, *best.arms), (*rival.shares, *best.shares), strict=True))
        telling = {arm for arm in best.arms if self._runs[arm] < LEAST_RUNS and shares[arm] > _SMALL}
        if rival.seconds_per_token < worst * (1 - _TOLERANCE):
            telling |= set(best.arms) ^ set(rival.arms)
        return {arm: shares[arm] for arm in sorted(telling)}

    def _cautious(self) -> Costs:
        """Return pessimistic costs of arms that may be picked."""
        mean, deviation = self._surrogate.posterior()
        known = self._runs >= LEAST_RUNS if (self._runs >= LEAST_RUNS).any() else self._runs > 0
        return self._costs(mean + _CAUTION * deviation, (known | self._memory.dominated()) & self._fitting())

    def _costs(self, logs: Floats, usable: Bools) -> Costs:
        return Costs(
            seconds=np.where(usable, np.exp(logs), np.inf),
            once=np.full(len(logs), self._trials.opening),
            peak_bytes=np.where(usable, self._memory.bounds(), np.inf),
            ceiling=self._memory.limit,
        )

    def _fitting(self) -> Bools:
        """Return arms that may run: bool [n]."""
        return self._memory.allowed() & ~self._broken

    def _seconds(self) -> Floats:
        """Return likely seconds per batch: float64 [n]."""
        return np.exp(self._surrogate.posterior()[0])

    def _predicted(self, doubt: Floats | float) -> Floats:
        """Return seconds of each arm's next run, twice at first."""
        batch = self._seconds() * np.exp(doubt)
        run = np.maximum(self._least_batches, np.round(self._time_s * TRIAL_PART / batch)) * batch
        opening = self._trials.opening * (np.arange(len(run)) != self._last)
        total: Floats = _ALLOWANCE * (opening + np.maximum(LEAST_RUNS - self._runs, 1) * run)
        return total
