"""The conductor of the choice: which provider, device and precision a run computes with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path

import msgspec
from msgspec import Struct

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError
from embedmill.base.home import home_folder, key_of, read_record, write_record
from embedmill.base.records import Model, Tokens
from embedmill.batch.tokens import thinned
from embedmill.engine.availability import availability_of
from embedmill.engine.catalogue import AUTO, PROVIDERS, find_provider
from embedmill.engine.catalogue.entry import Precision, Provider
from embedmill.engine.machine.machine import Machine, this_machine
from embedmill.engine.runners.client import DEVICES_S
from embedmill.engine.runners.start import list_devices
from embedmill.engine.target import Target, aim
from embedmill.tune.trial import Measurement, try_provider

LOG = logging.getLogger("embedmill")
# Documents that providers are measured with, and so many that a job must have for that to be worth its seconds.
SAMPLE_TEXTS = 256
WORTH_MEASURING = 1024
# A provider that failed may be mended by then.
_TRIED_AGAIN_DAYS = 7


class ProviderChoice(Struct, frozen=True, kw_only=True):
    """What was measured on one machine, and when."""

    measured: date
    trials: list[Measurement]


class Candidate(Struct, frozen=True, kw_only=True):
    """A provider that is installed, in a precision that it and the model have; `version` is its package's."""

    provider: Provider
    precision: Precision
    version: str


def choose_target(model: Model, engine: EngineTable, sample: Callable[[], Tokens], *, texts: int) -> Target:
    """The provider that was asked for, or with `auto` the fastest of those that work here.

    With several candidates they are measured on the texts of `sample` (each in a process of its own), and what
    was found is kept for the next run; a job of fewer than `WORTH_MEASURING` texts takes what was kept, or the CPU.
    Raises DeviceError where nothing works, or not what was asked for.
    """
    machine = this_machine()
    if engine.provider != AUTO:
        return _aimed(engine, machine)
    candidates = candidates_of(model, engine, machine)
    if len(candidates) == 1:
        return msgspec.structs.replace(
            _aimed(engine, machine, candidates[0].provider), chosen="the only provider installed here"
        )
    path = home_folder() / "choices" / f"{_key(model, engine, candidates, machine)}.json"
    kept = _kept(path)
    if kept is not None:
        try:
            target = _fastest(kept, engine, machine)
            LOG.info("%s: %s", target.label, target.chosen)
            return target
        except DeviceError as error:
            LOG.warning("what was chosen before does not hold any more (%s)", error)
    if texts < WORTH_MEASURING:
        return msgspec.structs.replace(
            _aimed(engine, machine, candidates[-1].provider), chosen="the job is too small to measure providers for"
        )
    tokens = thinned(sample(), SAMPLE_TEXTS)
    if len(tokens.truncated) == 0:
        tokens = model.canaries.tokens
    choice = ProviderChoice(measured=date.today(), trials=_measure(model, engine, candidates, tokens))
    write_record(path, choice)
    return _fastest(choice, engine, machine)


def candidates_of(model: Model, engine: EngineTable, machine: Machine) -> list[Candidate]:
    """Installed providers, in each precision that they and the model have.

    Raises DeviceError where none computes in the precision that was asked for.
    """
    installed = [(provider, availability_of(provider, machine)) for provider in PROVIDERS]
    found = [
        Candidate(provider=provider, precision=precision, version=stands.words)
        for provider, stands in installed
        if stands.state == "installed"
        for precision, graph in provider.precisions.items()
        if engine.precision in (AUTO, precision) and graph.graph in model.graphs
    ]
    if not found:
        raise DeviceError(
            f"no provider that is installed here computes {model.name} in {engine.precision};"
            " leave engine.precision (--precision) at auto, or see `embedmill doctor`"
        )
    return found


def _aimed(engine: EngineTable, machine: Machine, provider: Provider | None = None) -> Target:
    provider = provider or find_provider(engine.provider)
    return aim(provider, engine, machine, partial(list_devices, timeout_s=min(engine.timeout_s, DEVICES_S)))


def _measure(model: Model, engine: EngineTable, candidates: list[Candidate], tokens: Tokens) -> list[Measurement]:
    """A trial of each, in a process of its own: what a driver does there does not touch this one."""
    trials = []
    for candidate in candidates:
        asked = msgspec.structs.replace(engine, provider=candidate.provider.name, precision=candidate.precision)
        trial = try_provider(model, asked, tokens, real_only=True)
        LOG.info("measured %s", trial_words(trial))
        trials.append(trial)
    return trials


def _fastest(choice: ProviderChoice, engine: EngineTable, machine: Machine) -> Target:
    """Raises DeviceError with the reasons where none works."""
    figures = "; ".join(trial_words(trial) for trial in choice.trials)
    working = [trial for trial in choice.trials if trial.works]
    if not working:
        raise DeviceError(f"no provider works on this machine: {figures}")
    best = max(working, key=lambda trial: trial.documents_per_s)
    device = engine.device if best.device is None else str(best.device.index)
    asked = msgspec.structs.replace(engine, precision=best.precision, device=device)
    target = _aimed(asked, machine, find_provider(best.provider))
    chosen = f"the fastest of those measured on {choice.measured}: {figures}"
    return msgspec.structs.replace(target, chosen=chosen)


def trial_words(trial: Measurement) -> str:
    """A trial in words: its rate, or why it does not work."""
    name = f"{trial.provider} {trial.precision}"
    return f"{name} {trial.documents_per_s:.1f} documents/s" if trial.works else f"{name} does not work: {trial.words}"


def _key(model: Model, engine: EngineTable, candidates: list[Candidate], machine: Machine) -> str:
    """What a measurement holds for: the model, the options, the machine, and each candidate with its version."""
    return key_of(
        [
            model.identity,
            msgspec.to_builtins(engine),
            [machine.cpu, machine.usable_cores],
            [[candidate.provider.name, candidate.precision, candidate.version] for candidate in candidates],
        ]
    )


def _kept(path: Path) -> ProviderChoice | None:
    choice = read_record(path, ProviderChoice)
    if choice is None:
        return None
    lasting = all(trial.works for trial in choice.trials)
    return choice if lasting or _age_days(choice) < _TRIED_AGAIN_DAYS else None


def _age_days(choice: ProviderChoice) -> int:
    return abs((date.today() - choice.measured).days)
