"""The conductor of `embedmill bench`: the same documents through every provider that works on this machine."""

from __future__ import annotations

import logging
import statistics
import tempfile
from pathlib import Path

import msgspec

from embedmill import source
from embedmill.base.config import EngineTable, RunConfig
from embedmill.base.environment import version
from embedmill.base.errors import DeviceError, InputError
from embedmill.base.files import local
from embedmill.base.records import Model, Tokens
from embedmill.batch.tokens import thinned
from embedmill.engine.availability import require
from embedmill.engine.catalogue import AUTO, find_provider
from embedmill.engine.catalogue.cpu import CPU
from embedmill.engine.machine.machine import Machine, this_machine
from embedmill.jobs.job import sample_of
from embedmill.jobs.models import find_bundle
from embedmill.model.bundle import Bundle, check_files
from embedmill.report.bench import BenchResult, ProviderBench
from embedmill.report.bench_chart import bench_chart
from embedmill.source.plan import plan
from embedmill.tune.figures import FigureRequest
from embedmill.tune.provider import candidates_of, trial_words
from embedmill.tune.trial import Measurement, try_provider

LOG = logging.getLogger("embedmill")
# Longer than the trials of a choice: more texts, and the matrix peak.
_DEADLINE_S = 900.0


def bench(config: RunConfig, *, texts: int, rounds: int, chart: Path | None, emulated: bool) -> BenchResult:
    """Measure every installed provider, or the one that the config names, and the CPU, on documents of the job.

    Raises OutputError for a chart that cannot be written before anything is measured, DeviceError where nothing
    works, and the errors that a plan would.
    """
    if chart is not None:
        local.check_writable(chart)
    machine = this_machine()
    bundle = find_bundle(config.model)
    model = bundle.model(config.text)
    engines = _engines(model, config.engine, machine)
    tokens = _documents(config, model, texts)
    check_files(bundle)
    LOG.info("measuring %d documents by turns with: %s", len(tokens.truncated), ", ".join(map(_name, engines)))
    trials = _measure(bundle, config, engines, tokens, rounds, real_only=not emulated)
    measured = _compared(trials)
    if not any(one.documents for one in measured):
        reasons = "; ".join(f"{one.provider} {one.precision}: {one.words}" for one in measured)
        raise DeviceError(f"no provider works on this machine: {reasons}")
    found = BenchResult(
        version=version(),
        machine=machine,
        model=model.name,
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


def _engines(model: Model, engine: EngineTable, machine: Machine) -> list[EngineTable]:
    """What is measured: the CPU in float32 first, which the others are held against."""
    if engine.provider != AUTO:
        require(find_provider(engine.provider), machine)
    found = [
        msgspec.structs.replace(engine, provider=candidate.provider.name, precision=candidate.precision)
        for candidate in candidates_of(model, engine, machine)
        if engine.provider in (AUTO, candidate.provider.name)
    ]
    if not found:
        raise DeviceError(
            f"{engine.provider} does not compute {model.name} in {engine.precision};"
            " leave engine.precision (--precision) at auto"
        )
    first = msgspec.structs.replace(engine, provider=CPU.name, precision="fp32", device=None)
    return [first, *(one for one in found if one.provider != CPU.name)]


def _name(engine: EngineTable) -> str:
    return f"{engine.provider} {engine.precision}"


def _documents(config: RunConfig, model: Model, texts: int) -> Tokens:
    files = source.discover(config.input)
    columns = source.resolve(files, config)
    sample = sample_of(config, model, files, columns, plan(files, config, columns))
    tokens = thinned(sample.tokens, texts)
    if len(tokens.truncated) == 0:
        raise InputError("the input holds no text to measure with; name another with --input")
    return tokens


def _measure(
    bundle: Bundle, config: RunConfig, engines: list[EngineTable], tokens: Tokens, rounds: int, *, real_only: bool
) -> list[list[Measurement]]:
    """The trials of each, by turns, so that a drift of the machine hits all alike; one that fails is left out then."""
    trials: list[list[Measurement]] = [[] for _ in engines]
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-", ignore_cleanup_errors=True) as folder:
        for number in range(rounds):
            for engine, earlier in zip(engines, trials, strict=True):
                if earlier and not earlier[-1].works:
                    continue
                wanted = FigureRequest(folder=folder, reference=number == 0 and engine is engines[0], peak=number == 0)
                trial = try_provider(
                    bundle.folder,
                    config.text,
                    engine,
                    tokens,
                    real_only=real_only,
                    deadline_s=_DEADLINE_S,
                    wanted=wanted,
                )
                LOG.info("round %d of %d: %s", number + 1, rounds, trial_words(trial))
                earlier.append(trial)
    return trials


def _compared(trials: list[list[Measurement]]) -> list[ProviderBench]:
    """Each with its figures and its ratio to the first, sorted."""
    found = [_measured(own, trials[0]) for own in trials]
    return sorted(found, key=lambda one: -one.documents_per_s)


def _measured(trials: list[Measurement], reference: list[Measurement]) -> ProviderBench:
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
    """Least, median and greatest quotient of a round; None where the reference failed or had other documents."""
    own, other = trials[0].figures, reference[0].figures
    if own is None or other is None or own.texts != other.texts or not reference[-1].works:
        return None
    ratios = [trial.documents_per_s / known.documents_per_s for trial, known in zip(trials, reference, strict=False)]
    return min(ratios), statistics.median(ratios), max(ratios)


def _verdict(measured: list[ProviderBench]) -> str:
    """Whether something here is worth it over the CPU, in a sentence."""
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
    name = f"{best.provider} {best.precision}"
    if least > 1:
        return f"{name} embeds {ratio:.2f} times as many documents per second as the CPU"
    if most > 1:
        return (
            f"nothing here clearly beats the CPU: {name} embeds {ratio:.2f} times as many documents per second,"
            f" {least:.2f} to {most:.2f} round by round"
        )
    return f"nothing here beats the CPU: {name}, the nearest, embeds {ratio:.2f} times as many documents per second"
