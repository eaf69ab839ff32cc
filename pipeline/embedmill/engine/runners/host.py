"""What a process of sessions does: it runs batches as its parent asks."""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import msgspec
import numpy as np

from embedmill.base.errors import DeviceError, PipelineError
from embedmill.base.process.worker import ParentPipe
from embedmill.base.records import Batch, Tokens
from embedmill.base.results import SessionFacts
from embedmill.engine.runners.local import LocalRunner
from embedmill.engine.runners.messages import Asked, AskedFacts, Done, Facts, Failed, Opening, RunnerOptions, Said
from embedmill.engine.spec import EngineSpec, from_bytes


def serve(make: Callable[[EngineSpec, RunnerOptions, Callable[[str], None]], LocalRunner]) -> None:
    """The process: run what the parent asks, several batches at once, until it wants no more.

    `make` gives the runner of a spec, which tells its last argument what people should know.
    """
    with ParentPipe() as parent:
        questions = parent.questions()
        opening = msgspec.msgpack.decode(next(questions), type=Opening)
        say = partial(_say, parent)
        spec = from_bytes(opening.spec)
        try:
            runner = make(spec, opening.options, lambda words: say(Said(words)))
        except PipelineError as error:
            say(Failed(-1, type(error).__name__, str(error)))
            next(questions, None)
            return
        with runner, ThreadPoolExecutor(spec.lanes, thread_name_prefix="stream") as pool:
            served = _Served(runner)
            for question in questions:
                match msgspec.msgpack.decode(question, type=Asked | AskedFacts):
                    case AskedFacts():
                        say(Facts(runner.facts()))
                    case asked:
                        pool.submit(served.run, asked).add_done_callback(partial(_answered, say))
            # What computes is no one's any more, and may not even end.
            os._exit(0)


class _Served:
    """The process's runner, as batches ask for it."""

    def __init__(self, runner: LocalRunner) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._told = 0

    def run(self, asked: Asked) -> Done | Failed:
        """A batch, and what became of it."""
        lengths = np.frombuffer(asked.lengths, np.int64)
        tokens = Tokens(
            ids=np.frombuffer(asked.ids, np.int32),
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            truncated=np.zeros(len(lengths), np.bool_),
        )
        batch = Batch(rows=np.arange(len(lengths)), size=asked.size, sequence=asked.sequence)
        try:
            vectors = self._runner.run(tokens, batch)
        except DeviceError as error:
            return Failed(asked.number, type(error).__name__, str(error))
        return Done(asked.number, vectors.tobytes(), self._runner.busy_s, self._opened())

    def _opened(self) -> list[SessionFacts]:
        """The sessions that were opened since it was asked."""
        with self._lock:
            sessions = self._runner.sessions[self._told :]
            self._told += len(sessions)
        return sessions


def _say(parent: ParentPipe, what: Done | Failed | Said | Facts) -> None:
    try:
        parent.say(msgspec.msgpack.encode(what))
    except OSError:
        # The parent has ended: so does this.
        os._exit(1)


def _answered(say: Callable[[Done | Failed], None], future: Future[Done | Failed]) -> None:
    """Send the answer. What is no one's fault but this program's ends the process, which its parent then tells."""
    error = future.exception()
    if error is not None:
        traceback.print_exception(error)
        os._exit(1)
    say(future.result())
