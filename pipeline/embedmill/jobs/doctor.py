"""The conductor of `embedmill doctor`: what this machine has, and which providers work on it, each one tried."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import PipelineError
from embedmill.base.records import Model, Tokens
from embedmill.batch.tokenise import Tokeniser
from embedmill.engine.availability import availability_of
from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.machine.adapters import detect_adapters
from embedmill.engine.machine.machine import this_machine
from embedmill.jobs.models import find_bundle
from embedmill.report.doctor import DoctorResult, Finding, State
from embedmill.tune.trial import Measurement, try_provider

# Modules of the standard library whose docstrings are the documents of a trial: real text that every machine has.
_MODULES = """
argparse asyncio collections configparser copy csv datetime decimal difflib fractions functools gettext glob
gzip heapq inspect ipaddress json locale logging mimetypes optparse os pathlib platform plistlib pprint queue
random sched selectors shlex shutil smtplib socket statistics string subprocess tarfile tempfile textwrap
threading timeit traceback uuid warnings wave weakref zipfile
"""
_TEXTS = 128
_DEADLINE_S = 120.0


def examine(name: str, *, deadline_s: float = _DEADLINE_S) -> DoctorResult:
    """Look at the machine and try every installed provider with a model, each in a process of its own.

    Raises nothing for what a driver does, and nothing for a model that cannot be had: the findings say so.
    """
    machine = this_machine()
    adapters, unseen = detect_adapters(machine)
    try:
        known: Model | None = find_bundle(name).model(TextTable())
        why_not = ""
    except PipelineError as error:
        known, why_not = None, f"it is installed, but there is no model to try it with: {error}"
    tokens = _documents(known) if known is not None else None
    findings = []
    for provider in PROVIDERS:
        stands = availability_of(provider, machine)
        if stands.state != "installed":
            findings.append(_finding(provider, stands.state, stands.words))
        elif known is None or tokens is None:
            findings.append(_finding(provider, "fails", why_not))
        else:
            findings.append(_tried(provider, known, tokens, deadline_s))
    return DoctorResult(machine=machine, adapters=adapters, unseen=unseen, model=name, findings=findings)


def _finding(provider: Provider, state: State, words: str, trials: list[Measurement] | None = None) -> Finding:
    return Finding(
        provider=provider.name,
        drives=provider.drives,
        note=provider.note,
        state=state,
        words=words,
        trials=trials or [],
    )


def _tried(provider: Provider, model: Model, tokens: Tokens, deadline_s: float) -> Finding:
    """Every precision that the provider and the model have."""
    trials = []
    for precision, choice in provider.precisions.items():
        if choice.graph in model.graphs:
            engine = EngineTable(provider=provider.name, precision=precision)
            trials.append(try_provider(model, engine, tokens, real_only=False, deadline_s=deadline_s))
    if any(trial.works for trial in trials):
        return _finding(provider, "works", "", trials)
    words = trials[0].words if trials else f"the model has none of its graphs; it has {', '.join(model.graphs)}"
    return _finding(provider, "fails", words, trials)


def _documents(model: Model) -> Tokens:
    """Tokenise docstrings of the standard library."""
    texts = list(dict.fromkeys(docstrings()))
    return Tokeniser.of(model).encode(texts[:: max(1, len(texts) // _TEXTS)][:_TEXTS])


def docstrings() -> Iterator[str]:
    """Docstrings of well-documented modules, in a fixed order."""
    for name in _MODULES.split():
        module = importlib.import_module(name)
        for _, member in inspect.getmembers(module):
            text = inspect.getdoc(member) if getattr(member, "__module__", None) == name else None
            if text:
                yield text
