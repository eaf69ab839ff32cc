"""A runner in a process of its own: when that loses its device, crashes or hangs, a new one goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from copy import copy
from typing import Self

import msgspec
import numpy as np
from msgspec import structs

from embedmill.base.errors import DeviceError, DeviceLost, ModelError, OutOfMemory
from embedmill.base.process.worker import Worker, WorkerEnded
from embedmill.base.records import Batch, FloatArray, Tokens
from embedmill.base.results import SessionFacts
from embedmill.engine.runners.base import Cancelled, RunnerFacts
from embedmill.engine.runners.messages import Asked, AskedFacts, Done, Facts, Failed, Opening, RunnerOptions, Said
from embedmill.engine.spec import EngineSpec, to_bytes

# A batch for which the device is lost so often in a row is given up; from the second time on batches run at half their
# size each time, for a driver resets a device that computes too long. After so many batches a row is over.
_MOST_IN_A_ROW = 4
_ROW_ENDS = 10
_FACTS_S = 5.0
_ERRORS = {kind.__name__: kind for kind in (DeviceError, OutOfMemory, DeviceLost, ModelError)}


class Process:
    """One process, from its start to its end; batches that it still owes when it ends are lost."""

    def __init__(self, module: str, opening: Opening, *, dim: int, said: Callable[[str], None]) -> None:
        """Raises DeviceLost where no process can be started."""
        self._dim = dim
        self._said = said
        self._lock = threading.Lock()
        self._owed: dict[int, Future[FloatArray]] = {}
        self._facts: Future[RunnerFacts] | None = None
        self._asked = 0
        self._over: Exception | None = None
        self.busy_s = 0.0
        self.sessions: list[SessionFacts] = []
        try:
            self._worker = Worker(module, heard=self._heard)
            self._worker.send(msgspec.msgpack.encode(opening))
        except WorkerEnded as error:
            raise DeviceLost(f"its process {error}") from error

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """Vectors of a batch. Raises what its runner raised, and DeviceLost where the process ends before."""
        future: Future[FloatArray] = Future()
        with self._lock:
            if self._over is not None:
                raise copy(self._over)
            number, self._asked = self._asked, self._asked + 1
            self._owed[number] = future
        parts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]] for row in batch.rows]
        asked = Asked(
            number, np.concatenate(parts).tobytes(), tokens.lengths[batch.rows].tobytes(), batch.size, batch.sequence
        )
        self._send(asked)
        return future.result()

    def end(self, why: Exception) -> None:
        """Kill it; what it owes fails for that reason."""
        self._fail(why)
        self._worker.end()

    def facts(self) -> RunnerFacts:
        """What it knows of itself; of one that does not answer, what it told before."""
        future: Future[RunnerFacts] = Future()
        with self._lock:
            self._facts = future
            if self._over is None:
                self._send(AskedFacts())
        try:
            return future.result(_FACTS_S if self._over is None else 0)
        except TooLate:
            return RunnerFacts(sessions=self.sessions)

    def close(self, why: Exception) -> None:
        """End it, and let go of its pipes."""
        self.end(why)
        self._worker.__exit__()

    def _send(self, question: Asked | AskedFacts) -> None:
        """A process that has ended is heard of by the thread that hears."""
        try:
            self._worker.send(msgspec.msgpack.encode(question))
        except WorkerEnded:
            return

    def _heard(self, frame: bytes | None) -> None:
        if self._over is not None:
            return
        if frame is None:
            self._fail(DeviceLost(f"its process {self._worker.ending()}"))
            return
        match msgspec.msgpack.decode(frame, type=Done | Failed | Said | Facts):
            case Done(number, vectors, busy_s, sessions):
                self.busy_s = busy_s
                self.sessions += sessions
                self._settled(number).set_result(np.frombuffer(vectors, np.float32).reshape(-1, self._dim))
            case Failed(number, error, words) if number < 0:
                self._fail(_ERRORS[error](words))
            case Failed(number, error, words):
                self._settled(number).set_exception(_ERRORS[error](words))
            case Said(words):
                self._said(words)
            case Facts(facts):
                with self._lock:
                    if self._facts is not None and not self._facts.done():
                        self._facts.set_result(facts)

    def _settled(self, number: int) -> Future[FloatArray]:
        """The batch of that number, no more owed; no one waits for one that failed meanwhile."""
        with self._lock:
            return self._owed.pop(number, Future())

    def _fail(self, why: Exception) -> None:
        """Nothing more will come: what is owed fails, and whatever is asked."""
        with self._lock:
            self._over = self._over or why
            owed, self._owed = self._owed, {}
            if self._facts is not None and not self._facts.done():
                self._facts.set_result(RunnerFacts(sessions=self.sessions))
        for future in owed.values():
            future.set_exception(copy(self._over))


class ProcessRunner:
    """A runner whose sessions are in a process of their own; see `Runs`.

    A batch for which that process lost the device runs again in a new one, on the same target and no other.
    """

    def __init__(self, spec: EngineSpec, module: str, options: RunnerOptions, said: Callable[[str], None]) -> None:
        """`module` is what the process runs (its `main` calls `serve`); `said` is told what people should know."""
        self.spec = spec
        self._module = module
        self._terms = options
        self._said = said
        self._lock = threading.Lock()
        self._past = RunnerFacts()
        self._past_busy_s = 0.0
        self._cancelled = False
        self._given_up: DeviceLost | None = None
        self._in_a_row = 0
        self._since = 0
        self._process = self._started()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._process.close(Cancelled())

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """See Runs. Raises DeviceLost where the device is lost again and again, ModelError where files have changed."""
        while True:
            process = self._process
            try:
                vectors = process.run(tokens, batch)
            except DeviceLost as lost:
                self._lost(process, str(lost))
                continue
            with self._lock:
                self._since += 1
            return vectors

    def hung(self, seconds: float) -> None:
        """The process is ended; a new one runs what it owes."""
        self._process.end(DeviceLost(f"it has not ended a batch for {seconds:g} s, which engine.timeout_s allows"))

    def cancel(self) -> None:
        """See Runs; batches that compute are not waited for."""
        with self._lock:
            self._cancelled = True
        self._process.end(Cancelled())

    @property
    def busy_s(self) -> float:
        """See Runs."""
        return self._past_busy_s + self._process.busy_s

    def facts(self) -> RunnerFacts:
        """See Runs. The memory is that of the latest process."""
        now = self._process.facts()
        return structs.replace(now, sessions=self._past.sessions + now.sessions, losses=self._past.losses)

    def _lost(self, process: Process, why: str) -> None:
        """Start a new process in the place of one that lost the device, unless another stream has done so."""
        with self._lock:
            if self._cancelled:
                raise Cancelled
            if process is not self._process:
                return
            if self._given_up is not None:
                raise copy(self._given_up)
            process.close(DeviceLost(why))
            self._in_a_row = self._in_a_row + 1 if self._since < _ROW_ENDS else 1
            self._since = 0
            label = self.spec.target.label
            if self._in_a_row >= _MOST_IN_A_ROW:
                self._given_up = DeviceLost(
                    f"{label} was lost {self._in_a_row} times in a row, each time in a new process: {why}; the run can"
                    " be resumed, here when the device works again, or with another --provider"
                )
                raise self._given_up
            if self._in_a_row > 1:
                self._terms = structs.replace(self._terms, most_scale=self._terms.most_scale / 2)
            self._past = RunnerFacts(sessions=self._past.sessions + process.sessions, losses=[*self._past.losses, why])
            self._past_busy_s += process.busy_s
            self._said(f"{label} was lost ({why}); the work goes on in a new process")
            self._process = self._started()

    def _started(self) -> Process:
        opening = Opening(spec=to_bytes(self.spec), options=self._terms)
        return Process(self._module, opening, dim=self.spec.model.dim, said=self._said)
