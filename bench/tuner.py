"""What tuning gains over the catalogue's default, and how close it comes to the best.

    python -m bench.tuner --simulated [--devices 200] [--safety 1000]    random simulated devices, 10 % noise
    python -m bench.tuner [--runs 5] [--texts 1500] [--rounds 5]         this machine's CPU, real documents

Simulated: `--safety` devices with ceilings down to less than anything needs, 3 in 10 of them with a hidden limit below
the ceiling they are told, and `--devices` with room for four times the smallest batch and more, where the true rate of
what is used is divided by the best one whose true peak keeps the ceiling, and by that of the default.

Real: every run tunes anew. Then the texts are embedded with each of the settings that were found and with the default,
by turns, round by round.
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
from embedmill.engine.spec import EngineSpec
from embedmill.engine.target import target_for
from embedmill.jobs.models import find_bundle
from embedmill.tune.search import Limits, Mode, Pick, find_pick
from embedmill.tune.space import space_of
from embedmill.tune.trial import Measurer
from tests.support.exhaustive import best_tokens_per_s, choice_peak, tokens_per_s
from tests.support.tuner_devices import Job, tune
from tests.support.tuner_jobs import random_job

_MIB = 1 << 20


def simulated(devices: int, safety: int) -> None:
    """Print what happened on random devices."""
    print(f"safety, {safety} devices: {dict(sorted(_safety(safety).items()))}")
    outcomes = [(job, tune(job, seed).pick) for seed in range(devices) for job in [random_job(seed)]]
    for kind, fixed in (("any shape", False), ("fixed shapes", True)):
        _print_regret_and_gain(kind, [one for one in outcomes if bool(one[0].space.buckets) == fixed])


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


def _print_regret_and_gain(kind: str, outcomes: list[tuple[Job, Pick]]) -> None:
    rates = [tokens_per_s(job, pick.mode, pick.packing) for job, pick in outcomes]
    best = [rate / best_tokens_per_s(job) for rate, (job, _) in zip(rates, outcomes, strict=True)]
    gain = [
        rate / tokens_per_s(job, job.space.modes[0], job.space.default)
        for rate, (job, _) in zip(rates, outcomes, strict=True)
    ]
    for name, ratios in (("best", best), ("default", gain)):
        print(
            f"{kind}, {len(ratios)} devices, rate over the {name}: median {statistics.median(ratios):.3f}, 10th"
            f" percentile {np.quantile(ratios, 0.1):.3f}, 5th {np.quantile(ratios, 0.05):.3f}, worst {min(ratios):.3f}"
        )
    print(f"  below 0.93 of the best: {sum(ratio < 0.93 for ratio in best)}")
    print(f"  {dict(Counter(pick.verdict for _, pick in outcomes))}")


class Cpu:
    """This machine's CPU: tunes as `embedmill tune` does, and embeds at any point of the grid."""

    def __init__(self, model: Model, tokens: Tokens) -> None:
        self.model, self.tokens = model, tokens
        self.options = EngineTable(provider="cpu", precision="fp32")
        self.target = target_for(find_provider("cpu"), self.options, this_machine(), list_devices)
        self.space = space_of(self.target, model, self.options)

    def tune(self, limits: Limits) -> Pick:
        """Tune from nothing."""
        with Measurer(EngineSpec.decide(self.model, self.target, self.options), self.tokens) as measurer:
            return find_pick(self.space, self.tokens.lengths, limits, measurer.observe)

    @contextmanager
    def engine(self, mode: Mode) -> Iterator[Engine]:
        """An engine of some streams and threads."""
        options = structs.replace(self.options, streams=mode.streams, threads=mode.threads)
        with Engine(LocalRunner(EngineSpec.decide(self.model, self.target, options))) as engine:
            yield engine

    def rows_per_s(self, mode: Mode, packing: Packing) -> float:
        """Embed all texts on a warm session."""
        work = Work(tokens=self.tokens, batches=pack(self.tokens.lengths, packing))
        with self.engine(mode) as engine:
            list(engine.embed([(0, structs.replace(work, batches=work.batches[: mode.lanes]))]))
            began = time.perf_counter()
            list(engine.embed([(0, work)]))
        return len(self.tokens.truncated) / (time.perf_counter() - began)


def real(runs: int, texts: int, rounds: int, time_s: float) -> None:
    """Print every pick, and what its settings gain over the default."""
    model = find_bundle(DEFAULT_MODEL).model(TextTable())
    found = list(documents(Path(sysconfig.get_path("stdlib"))))
    chosen = [row["text"] for row in found[:: max(1, len(found) // texts)]][:texts]
    tokeniser = Tokeniser(
        Path(model.tokenizer), max_tokens=model.max_tokens, prompt=model.prompt, lowercase=model.lowercase
    )
    cpu = Cpu(model, with_longest(tokeniser.encode(chosen), model.max_tokens))
    limits = Limits(ceiling_bytes=int(0.85 * psutil.virtual_memory().available), time_s=time_s)
    picks = []
    for number in range(runs):
        picks.append(cpu.tune(limits))
        print(f"tuning {number}: {_pick_words(picks[-1])}", flush=True)
    default = (cpu.space.modes[0], cpu.space.default)
    settings = list(dict.fromkeys((pick.mode, pick.packing) for pick in picks if (pick.mode, pick.packing) != default))
    rates: dict[tuple[Mode, Packing], list[float]] = {}
    for _ in range(rounds):
        for one in (default, *settings):
            rates.setdefault(one, []).append(cpu.rows_per_s(*one))
    for one, several in rates.items():
        ratios = [rate / untuned for rate, untuned in zip(several, rates[default], strict=True)]
        print(
            f"{one[0].streams} x {one[0].threads}, {one[1].budget_tokens} tokens{' (default)' * (one == default)}:"
            f" {min(several):.1f} to {max(several):.1f} rows/s, over the default by turns: median"
            f" {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}"
        )


def _pick_words(pick: Pick) -> str:
    gains = " ".join(f"{gain:.2f}" for gain in pick.gains)
    return (
        f"{pick.mode.streams} x {pick.mode.threads}, {pick.packing.budget_tokens} tokens, {pick.verdict} ({gains}),"
        f" {pick.tokens_per_s:.0f} tokens/s, {(pick.peak_bytes or 0) / _MIB:.0f} MiB,"
        f" {len(pick.observations)} trials, {pick.ended}, {pick.seconds:.1f} s"
    )


def main() -> None:
    """See the module's words."""
    parser = argparse.ArgumentParser(prog="python -m bench.tuner", description=__doc__)
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--safety", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--texts", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--time", type=float, default=27.0)
    options = parser.parse_args()
    if options.simulated:
        simulated(options.devices, options.safety)
    else:
        real(options.runs, options.texts, options.rounds, options.time)


if __name__ == "__main__":
    main()
