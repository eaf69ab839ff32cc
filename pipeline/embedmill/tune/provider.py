"""Choice of provider, device and precision for a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.home import in_home, key_of, read_record, write_record
from embedmill.base.records import Model, Tokens
from embedmill.batch.tokens import thinned
from embedmill.engine.availability import availability_of, replaced_providers
from embedmill.engine.catalogue import AUTO, PROVIDERS, find_provider
from embedmill.engine.catalogue.entry import Precision, Provider
from embedmill.engine.devices import Device
from embedmill.engine.machine.machine import Machine, this_machine
from embedmill.engine.runners.client import DEVICES_S
from embedmill.engine.runners.start import list_devices
from embedmill.engine.target import Target, target_for
from embedmill.tune.trial import Measurement, try_provider

LOG = logging.getLogger("embedmill")
# Documents in a measurement, and how many a job must have for measuring to be worth its seconds.
SAMPLE_TEXTS = 256
WORTH_MEASURING = 1024
# A provider that failed may be repaired by then.
_RETRY_DAYS = 7


class ProviderChoice(Struct, frozen=True, kw_only=True):
    """Measurements of one machine, as cached."""

    measured: date
    trials: list[Measurement]


class Candidate(Struct, frozen=True, kw_only=True):
    """Installed provider in one precision, with the package's version."""

    provider: Provider
    precision: Precision
    version: str


def choose_target(
    model: Model,
    engine: EngineTable,
    sample: Callable[[], Tokens],
    *,
    texts: int,
    providers: Sequence[Provider] = PROVIDERS,
    try_provider: Callable[..., Measurement] = try_provider,
    list_devices: Callable[..., Sequence[Device]] = list_devices,
) -> Target:
    """Return the provider named by `engine`, or the fastest.

    Several candidates are measured on the texts of `sample`, and the result is cached; a job of fewer than
    `WORTH_MEASURING` texts takes a cached result, or the CPU. Raises DeviceError where nothing works.
    """
    machine = this_machine()

    def target_of(name: str, wish: EngineTable = engine) -> Target:
        timeout_s = min(wish.timeout_s, DEVICES_S)
        return target_for(find_provider(name, providers), wish, machine, partial(list_devices, timeout_s=timeout_s))

    if engine.provider != AUTO:
        return target_of(engine.provider)
    candidates = candidates_of(model, engine, machine, providers)
    if len(candidates) == 1:
        return structs.replace(target_of(candidates[0].provider.name), chosen="the only provider installed here")
    path = in_home("choices", f"{_key(model, engine, candidates, machine)}.json")
    if (target := _cached_target(path, engine, target_of)) is not None:
        LOG.info("%s: %s", target.label, target.chosen)
        return target
    if texts < WORTH_MEASURING:
        # The last one is the CPU, which starts at once.
        last = target_of(candidates[-1].provider.name)
        return structs.replace(last, chosen="the job is too small to measure providers for")
    tokens = thinned(sample(), SAMPLE_TEXTS)
    if len(tokens.truncated) == 0:
        tokens = model.canaries.tokens
    choice = _measure(partial(try_provider, model, tokens=tokens, real_only=True), engine, candidates)
    write_record(path, choice)
    return _fastest(choice, engine, target_of)


def candidates_of(
    model: Model, engine: EngineTable, machine: Machine, providers: Sequence[Provider] = PROVIDERS
) -> list[Candidate]:
    """List installed providers by precision. Raises DeviceError for none."""
    for words in replaced_providers(providers, machine):
        LOG.warning("%s", words)
    found = [
        Candidate(provider=provider, precision=precision, version=availability.words)
        for provider in providers
        if (availability := availability_of(provider, machine)).state == "installed"
        for precision, graph in provider.precisions.items()
        if engine.precision in (AUTO, precision) and graph.graph in model.graphs
    ]
    if not found:
        raise DeviceError(
            f"no provider that is installed here computes {model.name} in {engine.precision};"
            " leave engine.precision (--precision) at auto, or see `embedmill doctor`"
        )
    return found


def _measure(
    trial: Callable[[EngineTable], Measurement], engine: EngineTable, candidates: list[Candidate]
) -> ProviderChoice:
    trials = []
    for one in candidates:
        trials.append(trial(structs.replace(engine, provider=one.provider.name, precision=one.precision)))
        LOG.info("measured %s", trials[-1].summary)
    return ProviderChoice(measured=date.today(), trials=trials)


def _fastest(choice: ProviderChoice, engine: EngineTable, target_of: Callable[[str, EngineTable], Target]) -> Target:
    """Return the fastest target. Raises DeviceError with all reasons."""
    figures = "; ".join(trial.summary for trial in choice.trials)
    working = [trial for trial in choice.trials if trial.works]
    if not working:
        raise DeviceError(f"no provider works on this machine: {figures}")
    best = max(working, key=lambda trial: trial.documents_per_s)
    device = engine.device if best.device is None else str(best.device.index)
    target = target_of(best.provider, structs.replace(engine, precision=best.precision, device=device))
    return structs.replace(target, chosen=f"the fastest of those measured on {choice.measured}: {figures}")


def _key(model: Model, engine: EngineTable, candidates: list[Candidate], machine: Machine) -> str:
    """Hash model, options, machine and candidates with versions."""
    return key_of(
        [
            model.identity,
            {key: value for key, value in msgspec.to_builtins(engine).items() if key != "telemetry"},
            [machine.cpu, machine.usable_cores],
            [[candidate.provider.name, candidate.precision, candidate.version] for candidate in candidates],
        ]
    )


def _cached_target(path: Path, engine: EngineTable, target_of: Callable[[str, EngineTable], Target]) -> Target | None:
    """Return the target measured before, unless outdated."""
    choice = read_record(path, ProviderChoice)
    if choice is None:
        return None
    # `abs`, for a clock may have been set back.
    if not all(trial.works for trial in choice.trials) and abs((date.today() - choice.measured).days) >= _RETRY_DAYS:
        return None
    try:
        return _fastest(choice, engine, target_of)
    except DeviceError as error:
        # A device may have been removed since.
        LOG.warning("what was chosen before does not hold any more (%s)", error)
        return None
