"""The conductor of runners: in this process, or in one of their own, whose `main` this is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from embedmill.engine.memory.attach import guard_for
from embedmill.engine.runners.host import serve
from embedmill.engine.runners.local import Runner
from embedmill.engine.runners.messages import Terms
from embedmill.engine.runners.process import Apart
from embedmill.engine.spec import Runs, Setup
from embedmill.jobs.models import kept_contexts
from embedmill.model.bundle import check_files, open_bundle

_USUAL = Terms()


def runner_for(setup: Setup, terms: Terms = _USUAL, *, said: Callable[[str], None]) -> Runs:
    """What computes a setup: where its provider says so, a process of its own.

    `said` is told in words when batches shrink or grow, and when a device was lost. Raises DeviceError where the
    provider cannot run the model's graph, or runs it wrongly; a process of its own says so at the first batch.
    """
    if setup.target.provider.apart:
        return Apart(setup, __name__, terms, said)
    return _runner(setup, terms, said)


def _runner(setup: Setup, terms: Terms, said: Callable[[str], None]) -> Runner:
    guard = guard_for(setup.target, setup.config, said) if terms.watched else None
    contexts = kept_contexts(Path(terms.contexts) if terms.contexts else None)
    return Runner(setup, contexts=contexts, guard=guard, most_scale=terms.most_scale)


def _proved_runner(setup: Setup, terms: Terms, said: Callable[[str], None]) -> Runner:
    """In a process of its own: the files may have changed since the run began, which compared them too."""
    graph = next(iter(setup.model.graphs.values()))
    check_files(open_bundle(Path(graph.path).parent))
    return _runner(setup, terms, said)


def main() -> None:
    """The process."""
    serve(_proved_runner)
