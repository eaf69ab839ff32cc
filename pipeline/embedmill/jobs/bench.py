"""Job of `embedmill bench`: the same documents through every provider."""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from embedmill.base.config import EngineTable, RunConfig
from embedmill.base.environment import version
from embedmill.base.errors import DeviceError, InputError
from embedmill.base.files import local
from embedmill.base.records import Model, Tokens
from embedmill.batch.tokens import thinned
from embedmill.engine.availability import require
from embedmill.engine.catalogue import AUTO, PROVIDERS, find_provider
from embedmill.engine.catalogue.cpu import CPU
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.machine.machine import Machine, this_machine
from embedmill.jobs.job import Job
from embedmill.report.bench import BenchResult, ProviderBench, label
from embedmill.report.bench_chart import bench_chart
from embedmill.tune.figures import PEAK_SIZES, FigureRequest, Reference
from embedmill.tune.provider import candidates_of
from embedmill.tune.trial import Measurement, try_provider

LOG = logging.getLogger("embedmill")
# Longer than the trials of a run: more texts, and the matrix peak.
_DEADLINE_S = 900.0


def bench(
    config: RunConfig,
    *,
    texts: int,
    rounds: int,
    chart: Path | None,
    emulated: bool,
    providers: Sequence[Provider] = PROVIDERS,
    try_provider: Callable[..., Measurement] = try_provider,
) -> BenchResult:
    """Measure the CPU and installed providers, or a named one.

    Raises OutputError for a chart that cannot be written, DeviceError where nothing works, and the errors of a plan.
    """
    # An hour of measuring must not end with a chart that has no place.
    if chart is not None:
        local.check_writable(chart)
    machine = this_machine()
    job = Job(config)
    wishes = _wishes(job.model, config.engine, machine, providers)
    tokens = thinned(job.sample(job.plan()).tokens, texts)
    if len(tokens.truncated) == 0:
        raise InputError("the input holds no text to measure with; name another with --input")
    job.check_model()
    trial = partial(try_provider, job.model, real_only=not emulated, deadline_s=_DEADLINE_S)
    measured = _ranked(_measure(trial, wishes, tokens, rounds))
    found = BenchResult(
        version=version(),
        machine=machine,
        model=job.model.name,
        documents=len(tokens.truncated),
        tokens=int(tokens.lengths.sum()),
        rounds=rounds,
        measured=measured,
        verdict=_verdict(measured),
        chart=None if chart is None else str(chart),
    )
    if chart is not None:
        local.write_file(chart, bench_chart(found).encode(), scratch=chart.parent)
    return found


def _wishes(model: Model, engine: EngineTable, machine: Machine, providers: Sequence[Provider]) -> list[EngineTable]:
    """List providers to measure, the reference (CPU in float32) first."""
    if engine.provider != AUTO:
        require(find_provider(engine.provider, providers), machine)
    found = [
        msgspec.structs.replace(engine, provider=candidate.provider.name, precision=candidate.precision)
        for candidate in candidates_of(model, engine, machine, providers)
        if engine.provider in (AUTO, candidate.provider.name)
    ]
    if not found:
        raise DeviceError(
            f"{engine.provider} does not compute {model.name} in {engine.precision};"
            " leave engine.precision (--precision) at auto"
        )
    # A named device is a GPU or NPU; the reference has none.
    first = msgspec.structs.replace(engine, provider=CPU.name, precision="fp32", device=None)
    return [first, *(one for one in found if one.provider != first.provider)]


def _measure(
    trial: Callable[..., Measurement], wishes: list[EngineTable], tokens: Tokens, rounds: int
) -> list[list[Measurement]]:
    """Measure wishes by turns, in `rounds`; leave out failed ones."""
    names = ", ".join(f"{wish.provider} {wish.precision}" for wish in wishes)
    LOG.info("measuring %d documents by turns with: %s", len(tokens.truncated), names)
    # By turns, so that a drift of the machine's speed changes all alike.
    trials: list[list[Measurement]] = [[] for _ in wishes]
    reference = Reference()
    for number in range(rounds):
        for wish, earlier in zip(wishes, trials, strict=True):
            # A failed provider would fail again, perhaps at the deadline only.
            if earlier and not earlier[-1].works:
                continue
            first = number == 0
            request = FigureRequest(
                reference=reference, is_reference=first and wish is wishes[0], sizes=PEAK_SIZES if first else ()
            )
            earlier.append(trial(wish, tokens, request=request))
            LOG.info("round %d of %d: %s", number + 1, rounds, earlier[-1].summary)
    return trials


def _ranked(trials: list[list[Measurement]]) -> list[ProviderBench]:
    """Summarise, the fastest first. Raises DeviceError where nothing works."""
    measured = sorted((_summarised(own, trials[0]) for own in trials), key=lambda one: -one.documents_per_s)
    if not any(one.documents for one in measured):
        reasons = "; ".join(f"{label(one)}: {one.words}" for one in measured)
        raise DeviceError(f"no provider works on this machine: {reasons}")
    return measured


def _summarised(trials: list[Measurement], reference: list[Measurement]) -> ProviderBench:
    first, last = trials[0], trials[-1]
    named = ProviderBench(provider=first.provider, precision=first.precision, reference=trials is reference)
    if not last.works or first.figures is None or first.figures.texts == 0:
        return msgspec.structs.replace(named, words=last.words or "it embedded nothing")
    figures, rates = first.figures, [trial.documents_per_s for trial in trials]
    rate = statistics.median(rates)
    useful = None if figures.flops is None else figures.flops / figures.texts * rate
    peak = figures.peak_flops_per_s
    return msgspec.structs.replace(
        named,
        device="" if first.device is None else first.device.label,
        emulated=first.device is not None and first.device.emulated,
        rounds=rates,
        documents_per_s=rate,
        least=min(rates),
        most=max(rates),
        ratio=_ratio(trials, reference),
        documents=figures.texts,
        tokens_per_s=figures.tokens / figures.texts * rate,
        flops_per_s=useful,
        peak_flops_per_s=peak,
        peak_words=figures.peak_words,
        peak_share=None if useful is None or peak is None else useful / peak,
        padding=figures.padded_tokens / max(figures.tokens, 1) - 1,
        memory_bytes=figures.memory_bytes,
        memory_words=figures.memory_words,
        cosine=figures.cosine,
        canary_cosine=min(trial.canary_cosine for trial in trials),
        seconds=sum(trial.seconds for trial in trials),
    )


def _ratio(trials: list[Measurement], reference: list[Measurement]) -> tuple[float, float, float] | None:
    """Return least, median and greatest ratio; None if not comparable."""
    own, other = trials[0].figures, reference[0].figures
    if own is None or other is None or own.texts != other.texts or not reference[-1].works:
        return None
    # Round by round: both sides of a ratio were measured within seconds.
    ratios = [trial.documents_per_s / known.documents_per_s for trial, known in zip(trials, reference, strict=False)]
    return min(ratios), statistics.median(ratios), max(ratios)


def _verdict(measured: list[ProviderBench]) -> str:
    """Judge the fastest provider against the CPU, in a sentence."""
    others = [one for one in measured if not one.reference]
    compared = [(one.ratio, one) for one in others if one.ratio is not None]
    if not compared:
        if any(one.emulated for one in others):
            return "nothing is compared with the CPU: an emulated device says nothing of the speed of a real one"
        if any(one.documents for one in others):
            return "nothing is compared: the CPU itself does not work here"
        alone = "no other provider works here" if others else "no other provider was measured"
        return f"{alone}: the CPU it is; `embedmill doctor` says what could be installed"
    (least, ratio, most), best = max(compared, key=lambda pair: pair[0][1])
    name = label(best)
    if least > 1:
        return f"{name} embeds {ratio:.2f} times as many documents per second as the CPU"
    if most > 1:
        return (
            f"nothing here clearly beats the CPU: {name} embeds {ratio:.2f} times as many documents per second,"
            f" {least:.2f} to {most:.2f} round by round"
        )
    return f"nothing here beats the CPU: {name}, the nearest, embeds {ratio:.2f} times as many documents per second"
