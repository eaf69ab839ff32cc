"""What the tuner picks against the best of an exhaustive grid.

    python -m bench.tuner --simulated [--devices 200] [--safety 1000]    random simulated devices, 10 % noise
    python -m bench.tuner [--runs 20] [--texts 600] [--rounds 5]         this machine's CPU, real documents

Simulated: `--safety` devices with ceilings down to less than anything needs, 3 in 10 of them with a hidden limit below
the ceiling they are told, and `--devices` with room for four times the smallest batch and more, where the pick's true
rate is divided by the best one whose true peak keeps the ceiling.

Real: every run tunes anew, then every point of the grid embeds the same texts, in random order, round by round. Of
noisy points the best one looks better than it is; so the best is also chosen by the odd rounds and rated by the even
ones, and the other way round.
"""

from __future__ import annotations

import argparse
import statistics
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from msgspec import structs

from data.__main__ import documents
from embedmill.base.config import DEFAULT_MODEL, EngineTable, TextTable
from embedmill.base.errors import DeviceError
from embedmill.base.records import Model, Packing, Tokens, Work
from embedmill.batch.pack import pack
from embedmill.batch.tokenise import Tokeniser
from embedmill.batch.tokens import with_longest
from embedmill.engine.catalogue import find_provider
from embedmill.engine.engine import Engine
from embedmill.engine.machine.machine import this_machine
from embedmill.engine.runners.local import LocalRunner
from embedmill.engine.runners.start import list_devices
from embedmill.engine.spec import spec_for
from embedmill.engine.target import target_for
from embedmill.jobs.models import find_bundle
from embedmill.tune.search import Limits, Mode, Pick, Tuner
from embedmill.tune.space import space_of
from embedmill.tune.trial import Measurer
from tests.support.exhaustive import best_tokens_per_s, choice_peak, tokens_per_s
from tests.support.tuner_devices import tune
from tests.support.tuner_jobs import random_job

_MIB = 1 << 20


def simulated(devices: int, safety: int) -> None:
    """Print what happened on random devices."""
    print(f"safety, {safety} devices: {dict(sorted(_safety(safety).items()))}")
    for kind, ratios in _regret(devices).items():
        print(
            f"rate of the pick over the best, {len(ratios)} devices ({kind}): median {statistics.median(ratios):.4f},"
            f" 10th percentile {np.quantile(ratios, 0.1):.4f}, worst {min(ratios):.4f},"
            f" below 0.93: {sum(ratio < 0.93 for ratio in ratios)}"
        )


def _safety(devices: int) -> Counter[str]:
    counts: Counter[str] = Counter()
    for seed in range(devices):
        random = np.random.default_rng(10**6 + seed)
        job, kind = random_job(10**6 + seed, small=True, room=(0.5, 40.0)), "limit at or above the ceiling"
        if random.random() < 0.3:
            share, kind = float(random.uniform(0.2, 1.0)), "limit below the ceiling"
            job = structs.replace(job, hidden_bytes=(job.limits.ceiling_bytes or 0) * share)
        try:
            outcome = tune(job, seed)
        except DeviceError:
            counts[f"{kind}: no batch fits"] += 1
            continue
        counts["trials"] += len(outcome.pick.observations)
        counts["trials above the ceiling"] += outcome.breaches
        counts[f"{kind}: devices tuned"] += 1
        counts[f"{kind}: out of memory"] += outcome.refused
        counts[f"{kind}: most on one device"] = max(counts[f"{kind}: most on one device"], outcome.refused)
        counts["sizes tried again that had been refused"] += outcome.repeated
        peak = choice_peak(job, outcome.pick.mode, outcome.pick.packing)
        counts["picks above the ceiling"] += peak > (job.limits.ceiling_bytes or 0)
    return counts


def _regret(devices: int) -> dict[str, list[float]]:
    ratios: dict[str, list[float]] = {"all": [], "any shape": [], "fixed shapes": []}
    longest = 0.0
    for seed in range(devices):
        job = random_job(seed)
        pick = tune(job, seed).pick
        ratio = tokens_per_s(job, pick.mode, pick.packing) / best_tokens_per_s(job)
        ratios["all"].append(ratio)
        ratios["fixed shapes" if job.space.buckets else "any shape"].append(ratio)
        longest = max(longest, pick.seconds)
    print(f"longest tuning: {longest:.1f} s of 30 s")
    return {kind: found for kind, found in ratios.items() if found}


class Cpu:
    """This machine's CPU: tunes as `embedmill tune` does, and embeds at any point of the grid."""

    def __init__(self, model: Model, tokens: Tokens) -> None:
        self.model, self.tokens = model, tokens
        self.options = EngineTable(provider="cpu", precision="fp32")
        self.target = target_for(find_provider("cpu"), self.options, this_machine(), list_devices)
        self.space = space_of(self.target, model, self.options)

    def tune(self, limits: Limits, seed: int) -> Pick:
        """Tune from nothing."""
        tuner = Tuner(self.space, self.tokens.lengths, limits, seed=seed)
        with Measurer(spec_for(self.model, self.target, self.options), self.tokens) as measurer:
            while (trial := tuner.next()) is not None:
                tuner.observe(trial, measurer.observe(trial))
        return tuner.pick()

    @contextmanager
    def engine(self, mode: Mode) -> Iterator[Engine]:
        """An engine of some streams and threads."""
        options = structs.replace(self.options, streams=mode.streams, threads=mode.threads)
        with Engine(LocalRunner(spec_for(self.model, self.target, options))) as engine:
            yield engine

    def seconds(self, engine: Engine, work: Work) -> float:
        """How long a work takes."""
        began = time.perf_counter()
        list(engine.embed([(0, work)]))
        return time.perf_counter() - began


def real(runs: int, texts: int, rounds: int, time_s: float) -> None:
    """Print every pick and its rate over the grid's best."""
    model = find_bundle(DEFAULT_MODEL).model(TextTable())
    found = list(documents(Path(sysconfig.get_path("stdlib"))))
    chosen = [row["text"] for row in found[:: max(1, len(found) // texts)]][:texts]
    cpu = Cpu(model, with_longest(Tokeniser.of(model).encode(chosen), model.max_tokens))
    limits = Limits(ceiling_bytes=int(0.85 * psutil.virtual_memory().available), time_s=time_s)
    picks = []
    for seed in range(runs):
        began = time.perf_counter()
        picks.append(cpu.tune(limits, seed))
        print(f"run {seed}: {_said(picks[-1])}, {time.perf_counter() - began:.1f} s in all", flush=True)
    grid = _grid(cpu, rounds)
    rates = {point: statistics.median(found) for point, found in grid.items()}
    for point, rate in sorted(rates.items(), key=lambda item: -item[1]):
        print(f"grid: {point[0]} x {point[1]}, {point[2]} tokens: {rate:.0f} tokens/s")
    best = max(rates.values())
    print(f"grid's best {best:.0f} tokens/s; without its luck {_lucky_free(grid):.0f}")
    for name, against in (("best", best), ("best without its luck", _lucky_free(grid))):
        ratios = [rates[_point(pick.mode, pick.packing.budget_tokens)] / against for pick in picks]
        print(f"over the {name}: median {statistics.median(ratios):.3f}, worst {min(ratios):.3f}")


def _said(pick: Pick) -> str:
    return (
        f"{pick.mode.streams} x {pick.mode.threads}, {pick.packing.budget_tokens} tokens,"
        f" {pick.tokens_per_s:.0f} tokens/s, {(pick.peak_bytes or 0) / _MIB:.0f} MiB,"
        f" {len(pick.observations)} trials, {pick.ended}, {pick.seconds:.1f} s"
    )


def _point(mode: Mode, budget: int) -> tuple[int, int, int]:
    return mode.streams, mode.threads, budget


def _grid(cpu: Cpu, rounds: int) -> dict[tuple[int, int, int], list[float]]:
    """Tokens per second of each point, round by round."""
    points = [(mode, budget) for mode in cpu.space.modes for budget in cpu.space.budgets_tokens]
    works = {
        budget: Work(tokens=cpu.tokens, batches=pack(cpu.tokens.lengths, Packing(budget_tokens=budget)))
        for budget in cpu.space.budgets_tokens
    }
    rates: dict[tuple[int, int, int], list[float]] = {_point(*point): [] for point in points}
    random = np.random.default_rng(0)
    useful = float(cpu.tokens.lengths.sum())
    for _ in range(rounds):
        for number in random.permutation(len(points)):
            mode, budget = points[number]
            with cpu.engine(mode) as engine:
                first = works[budget].batches[: mode.lanes]
                cpu.seconds(engine, Work(tokens=cpu.tokens, batches=first))
                rates[_point(mode, budget)].append(useful / cpu.seconds(engine, works[budget]))
    return rates


def _lucky_free(grid: dict[tuple[int, int, int], list[float]]) -> float:
    """The best point's rate in rounds that did not choose it."""
    halves = [{point: statistics.median(rates[half::2] or rates) for point, rates in grid.items()} for half in (0, 1)]
    return statistics.mean(
        rating[max(choosing, key=lambda point: choosing[point])] for choosing, rating in (halves, halves[::-1])
    )


def main() -> None:
    """See the module's words."""
    parser = argparse.ArgumentParser(prog="python -m bench.tuner", description=__doc__)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--safety", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--time", type=float, default=30.0)
    options = parser.parse_args()
    if options.simulated:
        simulated(options.devices, options.safety)
    else:
        real(options.runs, options.texts, options.rounds, options.time)


if __name__ == "__main__":
    main()
