"""One provider tried in a process of its own, so that a driver that crashes or hangs takes nothing else along.

`main` is that process: the conductor of a few batches.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import DeviceError, PipelineError
from embedmill.base.process.child import leave_no_trace, run_child
from embedmill.batch.tokens import read_tokens, take, write_tokens
from embedmill.engine.devices import Device, devices_of
from embedmill.engine.machine.machine import this_machine
from embedmill.tune.figures import FigureRequest, Figures

if TYPE_CHECKING:
    from embedmill.base.records import Packing, Tokens, Work
    from embedmill.engine.engine import Engine
    from embedmill.engine.machine.memory import Probe
    from embedmill.engine.target import Target

# A trial's timed passes go on for so long, so that a pass of a few milliseconds is no figure.
_TIMED_S = 1.5
DEADLINE_S = 180.0
_EMULATED_TEXTS = 2
_EMULATED_TOKENS = 64


class Request(Struct, frozen=True, kw_only=True):
    """What a trial runs: a bundle's folder, the job's text and engine options, and a file of tokens.

    On an emulated device, which is too slow for more, it runs the few shortest texts, or with `real_only` none.
    `wanted` are figures beside the rates.
    """

    bundle: str
    text: TextTable
    engine: EngineTable
    tokens: str
    real_only: bool
    wanted: FigureRequest | None = None


class Measurement(Struct, frozen=True, kw_only=True):
    """What came of it. `words` is empty where it worked, else the reason.

    `devices` are all that the provider saw, `device` the one that was tried; rates are per second of warm
    batches; nodes are those of its worst session; `seconds` is the whole trial; `figures` are there if wanted.
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
        """Whether it computed, and truly."""
        return not self.words


def try_provider(
    bundle: Path,
    text: TextTable,
    engine: EngineTable,
    tokens: Tokens,
    *,
    real_only: bool,
    deadline_s: float = DEADLINE_S,
    wanted: FigureRequest | None = None,
) -> Measurement:
    """Embed `tokens` with the provider and precision that `engine` names, in a child process.

    Never raises for what a provider does: an error, a crash and a hang are told in the trial's `words`.
    """
    with tempfile.TemporaryDirectory(prefix="embedmill-trial-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_tokens(folder / "tokens.npz", tokens)
        request = Request(
            bundle=str(bundle),
            text=text,
            engine=engine,
            tokens=str(folder / "tokens.npz"),
            real_only=real_only,
            wanted=wanted,
        )
        (folder / "request.json").write_bytes(msgspec.json.encode(request))
        result = folder / "result.json"
        ended = run_child("embedmill.tune.trial", str(folder / "request.json"), str(result), timeout_s=deadline_s)
        try:
            if not ended.words:
                return msgspec.json.decode(result.read_bytes(), type=Measurement)
        except (OSError, msgspec.DecodeError):
            pass
    words = f"its process {ended.words or 'ended without a result'}"
    return Measurement(provider=engine.provider, precision=engine.precision, words=words)


def run_trial(request: Request) -> Measurement:
    """The child's work: open the bundle, embed the tokens, time it warm. Errors become the trial's words."""
    from embedmill.engine.catalogue import find_provider
    from embedmill.engine.target import aim

    engine, began, devices = request.engine, time.monotonic(), list[Device]()
    try:
        provider = find_provider(engine.provider)
        devices = devices_of(provider)
        target = aim(provider, engine, this_machine())
        if request.real_only and target.device is not None and target.device.emulated:
            raise DeviceError(f"this machine only emulates it ({target.device.name})")
        measured = _measure(request, target)
    except PipelineError as error:
        measured = Measurement(provider=engine.provider, precision=engine.precision, words=str(error))
    return msgspec.structs.replace(measured, devices=devices, seconds=time.monotonic() - began)


def _measure(request: Request, target: Target) -> Measurement:
    from embedmill.engine.engine import Engine
    from embedmill.engine.memory.usage import PeakMemory
    from embedmill.engine.runners.local import LocalRunner
    from embedmill.engine.sessions.compiled import ContextCache
    from embedmill.engine.spec import EngineSpec
    from embedmill.engine.target import packing_for
    from embedmill.model.bundle import check_files, open_bundle
    from embedmill.tune.figures import figures_of

    bundle = open_bundle(Path(request.bundle))
    check_files(bundle)
    model, options = bundle.model(request.text), request.engine
    tokens = read_tokens(Path(request.tokens))
    rows = list(range(len(tokens.truncated)))
    if target.device is not None and target.device.emulated:
        rows, options = _shortest(tokens), msgspec.structs.replace(options, budget_tokens=_EMULATED_TOKENS)
        tokens = take(tokens, rows)
    packing = packing_for(target.provider, model, options)
    spec = EngineSpec(model=model, target=target, packing=packing, config=options)
    work = _work(tokens, packing)
    with (
        PeakMemory(_probe(request, target)) as memory,
        Engine(LocalRunner(spec, contexts=ContextCache())) as engine,
    ):
        [(_, vectors)] = engine.embed([(0, work)])
        memory.stop()
        passes, seconds = _time(engine, work)
    wanted = request.wanted
    figures = figures_of(wanted, target, model, work, rows, vectors, memory.taken()) if wanted is not None else None
    return _told(engine, work, passes, seconds, figures)


def _work(tokens: Tokens, packing: Packing) -> Work:
    from embedmill.base.records import Work
    from embedmill.batch.pack import pack

    return Work(tokens=tokens, batches=pack(tokens.lengths, packing))


def _probe(request: Request, target: Target) -> Probe:
    """What looks at the memory that the trial takes; where no figures are wanted, nothing."""
    from embedmill.engine.machine.memory.reading import UnknownProbe
    from embedmill.engine.memory.attach import probe_of

    if request.wanted is None:
        return UnknownProbe("no one", "it was not asked for")
    return probe_of(target)


def _told(engine: Engine, work: Work, passes: int, seconds: float, figures: Figures | None) -> Measurement:
    facts, lengths = engine.facts(), work.tokens.lengths
    worst = min(facts.sessions, key=lambda session: session.nodes_placed - session.nodes)
    return Measurement(
        provider=facts.provider,
        precision=facts.precision,
        device=engine.target.device,
        documents_per_s=len(lengths) * passes / seconds,
        tokens_per_s=float(lengths.sum()) * passes / seconds,
        canary_cosine=min(session.canary_cosine for session in facts.sessions),
        nodes_placed=worst.nodes_placed,
        nodes=worst.nodes,
        figures=figures,
    )


def _shortest(tokens: Tokens) -> list[int]:
    """The few shortest texts."""
    return [int(row) for row in tokens.lengths.argsort(kind="stable")[:_EMULATED_TEXTS]]


def _time(engine: Engine, work: Work) -> tuple[int, float]:
    """Passes over the work, and the seconds they took; all sessions are open by now."""
    started = time.perf_counter()
    passes = 0
    while passes == 0 or time.perf_counter() - started < _TIMED_S:
        list(engine.embed([(0, work)]))
        passes += 1
    return passes, time.perf_counter() - started


def main(request: str, result: str) -> None:
    """The child: read a request, and write what came of it."""
    leave_no_trace()
    trial = run_trial(msgspec.json.decode(Path(request).read_bytes(), type=Request))
    Path(result).write_bytes(msgspec.json.encode(trial))
