"""Job of `embedmill doctor`: try every provider on this machine."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.environment import versions_of
from embedmill.base.errors import DeviceError, NoRuntime, PipelineError
from embedmill.base.records import Model, Tokens
from embedmill.batch.tokenise import Tokeniser
from embedmill.engine.availability import availability_of, fetch_by_windows
from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.catalogue.runtimes import RUNTIMES
from embedmill.engine.machine.adapters import detect_adapters
from embedmill.engine.machine.machine import this_machine
from embedmill.jobs.models import find_bundle
from embedmill.report.doctor import DoctorResult, Finding, State
from embedmill.tune.trial import Measurement, try_provider

# Standard library modules; their docstrings are the documents of trials: real text that every machine has.
_MODULES = """
argparse asyncio collections configparser copy csv datetime decimal difflib fractions functools gettext glob
gzip heapq inspect ipaddress json locale logging mimetypes optparse os pathlib platform plistlib pprint queue
random sched selectors shlex shutil smtplib socket statistics string subprocess tarfile tempfile textwrap
threading timeit traceback uuid warnings wave weakref zipfile
"""
_TEXTS = 128
_DEADLINE_S = 120.0


def examine(
    name: str,
    *,
    allow_provider_download: bool = False,
    deadline_s: float = _DEADLINE_S,
    providers: Sequence[Provider] = PROVIDERS,
    try_provider: Callable[..., Measurement] = try_provider,
) -> DoctorResult:
    """Try every installed provider with a model, in separate processes.

    With `allow_provider_download`, Windows fetches providers of its own catalogue first. Raises nothing for a failing
    driver or a missing model: the findings report both.
    """
    machine = this_machine()
    adapters, unseen = detect_adapters(machine)
    trial, missing = None, ""
    try:
        model = find_bundle(name).model(TextTable())
        trial = partial(try_provider, model, tokens=_documents(model), real_only=False, deadline_s=deadline_s)
    except PipelineError as error:
        missing = f"it is installed, but there is no model to try it with: {error}"
    findings = []
    for provider in providers:
        try:
            if allow_provider_download:
                fetch_by_windows(provider, machine)
            availability = availability_of(provider, machine)
        except (NoRuntime, DeviceError) as error:
            findings.append(_finding(provider, "fails", str(error)))
            continue
        if availability.state != "installed":
            findings.append(_finding(provider, availability.state, availability.words))
        elif trial is None:
            findings.append(_finding(provider, "fails", missing))
        else:
            findings.append(_tried(provider, model, trial))
    runtimes = [f"{name} {version}" for name, version in versions_of(RUNTIMES).items()]
    return DoctorResult(
        machine=machine, adapters=adapters, unseen=unseen, runtimes=runtimes, model=name, findings=findings
    )


def _finding(provider: Provider, state: State, words: str, trials: list[Measurement] | None = None) -> Finding:
    about = {"provider": provider.name, "drives": provider.drives, "note": provider.note}
    return Finding(**about, state=state, words=words, trials=trials or [])


def _tried(provider: Provider, model: Model, trial: Callable[[EngineTable], Measurement]) -> Finding:
    """Try every precision that both provider and model have."""
    trials = [
        trial(EngineTable(provider=provider.name, precision=precision))
        for precision, choice in provider.precisions.items()
        if choice.graph in model.graphs
    ]
    if any(trial.works for trial in trials):
        return _finding(provider, "works", "", trials)
    words = trials[0].words if trials else f"the model has none of its graphs; it has {', '.join(model.graphs)}"
    return _finding(provider, "fails", words, trials)


def _documents(model: Model) -> Tokens:
    """Tokenise docstrings of the standard library."""
    # Evenly spread, so that every module has a share in so few texts.
    texts = list(dict.fromkeys(docstrings()))
    return Tokeniser.of(model).encode(texts[:: max(1, len(texts) // _TEXTS)][:_TEXTS])


def docstrings() -> Iterator[str]:
    """Yield docstrings of well-documented modules, in a fixed order."""
    for name in _MODULES.split():
        module = importlib.import_module(name)
        for _, member in inspect.getmembers(module):
            text = inspect.getdoc(member) if getattr(member, "__module__", None) == name else None
            if text:
                yield text
