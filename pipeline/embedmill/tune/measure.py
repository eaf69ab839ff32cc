"""The conductor of a tuner's trials: every session in a process of its own.

So a driver that crashes or hangs ends a trial and not the tuning, and what a session needs is not hidden by what an
earlier one left behind. `main` is that process.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np
from msgspec import Struct

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import OutOfMemory, PipelineError
from embedmill.base.process.worker import Worker, WorkerEnded, answer
from embedmill.batch.tokens import read_tokens, write_tokens
from embedmill.tune.search.types import OUT_OF_MEMORY, Observation

if TYPE_CHECKING:
    from embedmill.base.records import Batch, Bucket, Tokens
    from embedmill.engine.engine import Engine
    from embedmill.engine.memory.usage import PeakMemory
    from embedmill.tune.search.space import Session
    from embedmill.tune.search.types import Trial

# A session may have to be compiled first; a trial is a few seconds.
_OPEN_S, _RUN_S = 300.0, 120.0


class Opening(Struct, frozen=True, kw_only=True):
    """What a session is opened with: a bundle's folder, text and engine options, a file of tokens, and its fixed
    shape (rows and sequence; None: any)."""

    bundle: str
    text: TextTable
    engine: EngineTable
    tokens: str
    in_flight: int
    bucket: tuple[int, int] | None


class Opened(Struct, frozen=True, kw_only=True):
    """How it went: `failure` is empty where it did go well; the ceiling is in bytes, from what was free before."""

    seconds: float = 0.0
    ceiling_bytes: int | None = None
    failure: str = ""


class Run(Struct, frozen=True, kw_only=True):
    """Batches to run: rows, size and sequence of each."""

    batches: list[tuple[list[int], int, int]]


class Measurer:
    """Runs trials, one session open at a time; a context manager."""

    def __init__(self, bundle: Path, text: TextTable, engine: EngineTable, tokens: Tokens) -> None:
        """`engine` names the provider and the device."""
        self._bundle, self._text, self._engine = bundle, text, engine
        self._scratch = tempfile.TemporaryDirectory(prefix="embedmill-tune-", ignore_cleanup_errors=True)
        self._tokens = Path(self._scratch.name) / "tokens.npz"
        write_tokens(self._tokens, tokens)
        self._worker: Worker | None = None
        self._session: tuple[Session, int, int] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._scratch.cleanup()

    def observe(self, trial: Trial) -> Observation:
        """Run a trial. Whatever goes wrong is told in the observation, never raised."""
        mode, bucket = trial.knobs.mode, trial.knobs.bucket
        wanted = (trial.knobs.session, mode.streams, mode.in_flight)
        began, opened = time.monotonic(), Opened()
        try:
            if wanted != self._session:
                opened = self._open(mode.precision, mode.streams, mode.threads, mode.in_flight, bucket)
                self._session = wanted
            if opened.failure:
                raise WorkerEnded(opened.failure)
            open_s = time.monotonic() - began if opened.seconds else 0.0
            found = self._ask(trial.batches)
        except WorkerEnded as error:
            self._close()
            return Observation(seconds=time.monotonic() - began, failure=str(error))
        if found.failure is not None:
            self._close()
        return msgspec.structs.replace(found, open_seconds=open_s, ceiling_bytes=opened.ceiling_bytes)

    def _open(self, precision: str, streams: int, threads: int, in_flight: int, bucket: Bucket | None) -> Opened:
        self._close()
        engine = msgspec.structs.replace(self._engine, precision=precision, streams=streams, threads=threads)
        opening = Opening(
            bundle=str(self._bundle),
            text=self._text,
            engine=engine,
            tokens=str(self._tokens),
            in_flight=in_flight,
            bucket=None if bucket is None else (bucket.rows, bucket.sequence),
        )
        path = Path(self._scratch.name) / "opening.json"
        path.write_bytes(msgspec.json.encode(opening))
        self._worker = Worker("embedmill.tune.measure", str(path))
        return msgspec.json.decode(self._worker.hear(timeout_s=_OPEN_S), type=Opened)

    def _ask(self, batches: tuple[Batch, ...]) -> Observation:
        assert self._worker is not None
        run = Run(batches=[(batch.rows.tolist(), batch.size, batch.sequence) for batch in batches])
        return msgspec.json.decode(self._worker.ask(msgspec.json.encode(run), timeout_s=_RUN_S), type=Observation)

    def _close(self) -> None:
        self._session = None
        if self._worker is not None:
            self._worker.__exit__()
            self._worker = None


class Trialled:
    """The child's side: an engine with one session, and the memory that it takes."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._tokens = read_tokens(Path(opening.tokens))
        self._engine: Engine | None = None
        self._cores = 0
        self._memory: PeakMemory | None = None

    def open(self) -> Opened:
        """Open the session and prove it; an error becomes words."""
        began = time.monotonic()
        try:
            most = self._start()
        except OutOfMemory:
            return Opened(failure=OUT_OF_MEMORY)
        except PipelineError as error:
            return Opened(failure=str(error))
        return Opened(seconds=time.monotonic() - began, ceiling_bytes=most)

    def run(self, asked: Run) -> Observation:
        """Run batches, all of them handed over at once; an error becomes words."""
        from embedmill.base.records import Batch, Work

        assert self._engine is not None
        assert self._memory is not None
        batches = [
            Batch(rows=np.array(rows, np.int64), size=size, sequence=sequence) for rows, size, sequence in asked.batches
        ]
        failure = None
        began, processor_began = time.perf_counter(), time.process_time()
        try:
            list(self._engine.embed([(0, Work(tokens=self._tokens, batches=batches))]))
        except OutOfMemory:
            failure = OUT_OF_MEMORY
        except PipelineError as error:
            failure = str(error)
        seconds, processor_s = time.perf_counter() - began, time.process_time() - processor_began
        if self._engine.facts().memory is not None:
            # Nothing is watched here, so that batches were cut because there was no memory for one.
            failure = OUT_OF_MEMORY
        return Observation(
            seconds=seconds,
            peak_bytes=self._memory.taken().peak_bytes,
            failure=failure,
            processor_share=processor_s / (seconds * self._cores) if self._cores else None,
        )

    def _start(self) -> int | None:
        """The ceiling, in bytes, from what was free before."""
        from embedmill.base.records import Bucket, Packing
        from embedmill.engine.catalogue import find_provider
        from embedmill.engine.engine import Engine
        from embedmill.engine.machine.machine import this_machine
        from embedmill.engine.machine.memory import ceiling
        from embedmill.engine.memory.attach import probe_of
        from embedmill.engine.memory.usage import PeakMemory
        from embedmill.engine.runners.local import LocalRunner
        from embedmill.engine.sessions.compiled import ContextCache
        from embedmill.engine.spec import EngineSpec
        from embedmill.engine.target import aim
        from embedmill.model.bundle import check_files, open_bundle

        asked = self._opening
        bundle = open_bundle(Path(asked.bundle))
        check_files(bundle)
        model = bundle.model(asked.text)
        target = aim(find_provider(asked.engine.provider), asked.engine, this_machine())
        probe = probe_of(target)
        before = probe.read()
        self._memory = PeakMemory(probe).__enter__()
        bucket = None if asked.bucket is None else Bucket(rows=asked.bucket[0], sequence=asked.bucket[1])
        packing = Packing(budget_tokens=1, buckets=() if bucket is None else (bucket,))
        spec = EngineSpec(model=model, target=target, packing=packing, config=asked.engine, in_flight=asked.in_flight)
        runner = LocalRunner(spec, contexts=ContextCache())
        runner.open(bucket)
        self._engine = Engine(runner)
        if target.provider.runs == "cores":
            self._cores = spec.streams * spec.threads
        return ceiling(before, asked.engine.memory_fraction)


def main(opening: str) -> None:
    """The child: open a session, and run what it is asked to."""
    session = Trialled(msgspec.json.decode(Path(opening).read_bytes(), type=Opening))
    answer(
        lambda: msgspec.json.encode(session.open()),
        lambda question: msgspec.json.encode(session.run(msgspec.json.decode(question, type=Run))),
    )
