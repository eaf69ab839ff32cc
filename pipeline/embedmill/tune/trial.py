"""Trials of providers and batches, through ordinary runners.

Every trial computes in a host process, so that a driver that crashes or hangs ends the trial and nothing else.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from msgspec import Struct, structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError, DeviceLost, OutOfMemory, PipelineError
from embedmill.base.records import Model, Packing, Tokens, Work
from embedmill.batch.pack import pack
from embedmill.batch.tokens import take
from embedmill.engine.availability import require
from embedmill.engine.catalogue import PROVIDERS, find_provider
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.engine.engine import Engine
from embedmill.engine.machine.machine import this_machine
from embedmill.engine.memory.usage import PeakUsage
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.client import HostClient
from embedmill.engine.runners.messages import Timed
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.spec import EngineSpec
from embedmill.engine.target import Target, target_for
from embedmill.tune.figures import FigureRequest, Figures, figures_of
from embedmill.tune.search.types import OUT_OF_MEMORY, Observation, Trial

# Timed passes go on for so long, because a single pass of a few milliseconds is too noisy.
_TIMED_S = 1.5
DEADLINE_S = 180.0
# An emulated device is too slow for more.
_EMULATED_TEXTS, _EMULATED_TOKENS = 2, 64
# A session may have to be compiled first; a trial of the tuner is a few seconds.
_OPEN_S, _RUN_S = 300.0, 120.0


class Measurement(Struct, frozen=True, kw_only=True):
    """Result of a provider's trial; `words` explain a failure.

    `devices` are all of the provider's, `device` the one in the trial; rates are per second of warm batches; nodes are
    those of the worst session; `seconds` is the whole trial; `figures` are present if requested.
    """

    provider: str
    precision: str
    words: str = ""
    device: Device | None = None
    devices: list[Device] = []
    documents_per_s: float = 0.0
    tokens_per_s: float = 0.0
    canary_cosine: float = 0.0
    nodes_placed: int = 0
    nodes: int = 0
    seconds: float = 0.0
    figures: Figures | None = None

    @property
    def works(self) -> bool:
        """Tell if the provider computed, and correctly."""
        return not self.words

    @property
    def summary(self) -> str:
        """Return rate, or reason of a failure, in words."""
        result = f" does not work: {self.words}" if self.words else f" {self.documents_per_s:.1f} documents/s"
        return f"{self.provider} {self.precision}{result}"


def try_provider(
    model: Model,
    wish: EngineTable,
    tokens: Tokens,
    *,
    real_only: bool,
    deadline_s: float = DEADLINE_S,
    timed_s: float = _TIMED_S,
    request: FigureRequest | None = None,
    providers: Sequence[Provider] = PROVIDERS,
) -> Measurement:
    """Measure the provider and precision of `wish` on `tokens`.

    Timed for `timed_s` seconds once warm. An emulated device runs the few shortest texts, or with `real_only` none.
    Never raises for a provider: an error, a crash and a hang go into `words` of the measurement.
    """
    began, devices = time.monotonic(), list[Device]()
    try:
        provider, machine = find_provider(wish.provider, providers), this_machine()
        require(provider, machine)
        with _host_until(model, deadline_s) as host:
            devices = host.devices(provider)
            target = target_for(provider, wish, machine, lambda _: devices)
            if real_only and _emulated(target):
                raise DeviceError(f"this machine only emulates it ({target.device.name if target.device else ''})")
            rows = list(range(len(tokens.truncated)))
            if _emulated(target):
                rows = [int(row) for row in tokens.lengths.argsort(kind="stable")[:_EMULATED_TEXTS]]
                tokens, wish = take(tokens, rows), structs.replace(wish, budget_tokens=_EMULATED_TOKENS)
            spec = structs.replace(EngineSpec.decide(model, target, wish), timeout_s=deadline_s)
            work = Work(tokens=tokens, batches=pack(tokens.lengths, spec.packing))
            options = RunnerOptions(watched=False, measured=request is not None, attempts=1)
            runner = ProcessRunner(spec, options, lambda _: None, host=host)
            found = _measured(runner, work, rows, timed_s, request)
    except PipelineError as error:
        found = Measurement(provider=wish.provider, precision=wish.precision, words=str(error))
    return structs.replace(found, devices=devices, seconds=time.monotonic() - began)


@contextmanager
def _host_until(model: Model, deadline_s: float) -> Iterator[HostClient]:
    """Start a host and kill the process after `deadline_s`."""
    with HostClient(model.folder) as host:
        late = DeviceLost(f"its process did not answer in {deadline_s:g} s")
        timer = threading.Timer(deadline_s, host.end, [late])
        timer.daemon = True
        timer.start()
        try:
            yield host
        finally:
            timer.cancel()


def _measured(
    runner: ProcessRunner, work: Work, rows: list[int], timed_s: float, request: FigureRequest | None
) -> Measurement:
    with Engine(runner) as engine:
        [(_, vectors)] = engine.embed([(0, work)])
        # Read after one pass, before timed ones and matrix products take memory.
        peak = (runner.peak() if request is not None else None) or PeakUsage(peak_bytes=None)
        timed = timed_passes(engine, runner, work, timed_s, timeout_s=runner.spec.timeout_s)
        figures = None if request is None else figures_of(request, runner, work, rows, vectors, peak)
        facts = engine.facts()
    worst = min(facts.sessions, key=lambda session: session.nodes_placed - session.nodes)
    return Measurement(
        provider=facts.provider,
        precision=facts.precision,
        device=runner.spec.target.device,
        documents_per_s=len(rows) * timed.passes / timed.seconds,
        tokens_per_s=float(work.tokens.lengths.sum()) * timed.passes / timed.seconds,
        canary_cosine=min(session.canary_cosine for session in facts.sessions),
        nodes_placed=worst.nodes_placed,
        nodes=worst.nodes,
        figures=figures,
    )


def timed_passes(engine: Engine, runner: ProcessRunner, work: Work, at_least_s: float, *, timeout_s: float) -> Timed:
    """Time passes over a work as in a run."""
    # A run reaches isolated sessions over a pipe, and those of the CPU directly: the host itself times these.
    if not runner.spec.target.provider.ort.isolated:
        return runner.time(work, at_least_s, timeout_s=timeout_s)
    passes, began = 0, time.perf_counter()
    while passes == 0 or time.perf_counter() - began < at_least_s:
        list(engine.embed([(0, work)]))
        passes += 1
    seconds, memory = time.perf_counter() - began, runner.facts().memory
    whole = memory is None or not memory.changes
    return Timed(-1, passes, seconds, 0.0, whole, runner.peak())


class Measurer:
    """Runner of tuning trials on one session; a context manager."""

    def __init__(self, spec: EngineSpec, tokens: Tokens, *, open_s: float = _OPEN_S, run_s: float = _RUN_S) -> None:
        """Derive every trial from `spec`, on texts of `tokens`."""
        self._spec = structs.replace(spec, timeout_s=run_s)
        self._tokens = tokens
        self._open_s, self._run_s = open_s, run_s
        self._engine: Engine | None = None
        self._runner: ProcessRunner | None = None
        self._session: tuple[object, ...] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def observe(self, trial: Trial) -> Observation:
        """Run a trial; an error becomes the observation's `failure`."""
        mode, began = trial.knobs.mode, time.monotonic()
        session = (trial.knobs.session, mode.streams, mode.threads, mode.in_flight)
        open_s, ceiling_bytes = 0.0, None
        try:
            if session != self._session:
                ceiling_bytes = self._open(trial)
                open_s, self._session = time.monotonic() - began, session
            return structs.replace(self._timed(trial), open_seconds=open_s, ceiling_bytes=ceiling_bytes)
        except PipelineError as error:
            self._close()
            failure = OUT_OF_MEMORY if isinstance(error, OutOfMemory) else str(error)
            return Observation(seconds=time.monotonic() - began, failure=failure)

    def _open(self, trial: Trial) -> int | None:
        """Open a session in a new process; return available bytes."""
        # A new process, so that peak memory is that of this trial alone.
        self._close()
        mode, bucket = trial.knobs.mode, trial.knobs.bucket
        spec = structs.replace(
            self._spec,
            target=structs.replace(self._spec.target, precision=mode.precision),
            packing=Packing(budget_tokens=1, buckets=() if bucket is None else (bucket,)),
            streams=mode.streams,
            threads=mode.threads,
            in_flight=mode.in_flight,
        )
        options = RunnerOptions(watched=False, measured=True, eager=True, attempts=1)
        self._runner = ProcessRunner(spec, options, lambda _: None)
        self._engine = Engine(self._runner).__enter__()
        return self._runner.open(self._open_s)

    def _timed(self, trial: Trial) -> Observation:
        assert self._engine is not None
        assert self._runner is not None
        work = Work(tokens=self._tokens, batches=list(trial.batches))
        timed = timed_passes(self._engine, self._runner, work, 0.0, timeout_s=self._run_s)
        if not timed.whole:
            raise OutOfMemory("a batch was cut because memory was short")
        spec = self._runner.spec
        cores = spec.streams * spec.threads if spec.target.provider.runs == "cores" else 0
        return Observation(
            seconds=timed.seconds,
            peak_bytes=None if timed.peak is None else timed.peak.peak_bytes,
            failure=None,
            processor_share=timed.processor_s / (timed.seconds * cores) if cores else None,
        )

    def _close(self) -> None:
        engine, self._engine, self._runner, self._session = self._engine, None, None, None
        if engine is not None:
            engine.__exit__()


def _emulated(target: Target) -> bool:
    return target.device is not None and target.device.emulated
