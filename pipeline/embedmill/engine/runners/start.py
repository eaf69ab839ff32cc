"""The conductor of runners: in this process, or in one of their own, whose `main` this is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from embedmill.engine.memory.attach import guard_for
from embedmill.engine.runners.base import Runner
from embedmill.engine.runners.host import serve
from embedmill.engine.runners.local import LocalRunner
from embedmill.engine.runners.messages import RunnerOptions
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.spec import EngineSpec
from embedmill.model.bundle import check_files, open_bundle

_USUAL = RunnerOptions()


def runner_for(spec: EngineSpec, options: RunnerOptions = _USUAL, *, said: Callable[[str], None]) -> Runner:
    """What computes a spec: where its provider says so, a process of its own.

    `said` is told in words when batches shrink or grow, and when a device was lost. Raises DeviceError where the
    provider cannot run the model's graph, or runs it wrongly; a process of its own says so at the first batch.
    """
    if spec.target.provider.apart:
        return ProcessRunner(spec, __name__, options, said)
    return _runner(spec, options, said)


def _runner(spec: EngineSpec, options: RunnerOptions, said: Callable[[str], None]) -> LocalRunner:
    guard = guard_for(spec.target, spec.config, said) if options.watched else None
    contexts = ContextCache(Path(options.contexts) if options.contexts else None)
    return LocalRunner(spec, contexts=contexts, guard=guard, most_scale=options.most_scale)


def _proved_runner(spec: EngineSpec, options: RunnerOptions, said: Callable[[str], None]) -> LocalRunner:
    """In a process of its own: the files may have changed since the run began, which compared them too."""
    graph = next(iter(spec.model.graphs.values()))
    check_files(open_bundle(Path(graph.path).parent))
    return _runner(spec, options, said)


def main() -> None:
    """The process."""
    serve(_proved_runner)
