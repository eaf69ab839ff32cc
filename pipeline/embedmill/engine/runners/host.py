"""Host process: lists devices, opens sessions and computes batches."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
from msgspec import structs

from embedmill.base.errors import ModelError, PipelineError
from embedmill.base.files import local
from embedmill.base.files.digest import first_mismatch
from embedmill.base.home import in_home, key_of, scratch_folder
from embedmill.base.process.worker import ParentPipe
from embedmill.base.records import Batch
from embedmill.engine.devices import devices_of
from embedmill.engine.machine.memory import ceiling
from embedmill.engine.memory.attach import probe_of
from embedmill.engine.memory.usage import PeakMemory, PeakUsage
from embedmill.engine.runners import messages
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.local import LocalRunner, open_local
from embedmill.engine.sessions.matrix_peak import fastest_product
from embedmill.engine.spec import EngineSpec

Opener = Callable[[EngineSpec, RunnerOptions, Callable[[str], None]], LocalRunner]


def main(*folders: str) -> None:
    """Serve a parent with bundles of `folders` and received ones."""
    serve(open_local, [Path(folder) for folder in folders])


def serve(open_runner: Opener, folders: Sequence[Path] = ()) -> None:
    """Answer requests until the parent ends, several batches at once."""
    with ParentPipe() as parent:
        _say(parent, messages.Hello(-1, messages.PROTOCOL))
        host = _Host(open_runner, Bundles(folders), lambda reply: _say(parent, reply))
        for frame in parent.questions():
            host.answer(messages.decode_request(frame))
        # Batches that still compute have no parent to go to, and may never end.
        os._exit(0)


class Bundles:
    """Cache of model files on the host, found by digest."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._received: dict[str, bytearray] = {}

    def find(self, files: dict[str, str]) -> Path | None:
        """Find a folder of files with given sha256 by name.

        Raises ModelError where a folder has all the names and another content, or a name is no plain file name.
        """
        for name in files:
            # A name from the pipe must not lead out of the folder.
            if Path(name).name != name or name in ("", ".", ".."):
                raise ModelError(f"{name!r} cannot be a model's file")
        for folder in (*self._folders, self._received_folder(files)):
            if all((folder / name).is_file() for name in files):
                mismatch = first_mismatch(folder, files)
                if mismatch is not None:
                    raise ModelError(f"{mismatch} is missing or damaged (sha256 differs); add the model again")
                return folder
        return None

    def receive(self, part: messages.SendFile) -> None:
        """Take a part of a file."""
        self._received.setdefault(part.name, bytearray()).extend(part.data)

    def keep(self, files: dict[str, str]) -> Path:
        """Publish the received files. Raises ModelError for digests, OutputError."""
        place = self._received_folder(files)
        with scratch_folder(place.parent) as scratch:
            folder = scratch / "bundle"
            folder.mkdir()
            for name in files:
                (folder / name).write_bytes(self._received.pop(name, b""))
            if first_mismatch(folder, files) is not None:
                raise ModelError("the model's files were not received whole; run the same command again")
            local.publish_folder(folder, place)
        return place

    @staticmethod
    def _received_folder(files: dict[str, str]) -> Path:
        return in_home("received", key_of(files))


class _Host:
    """State of the process: open sessions, and answers to requests."""

    def __init__(self, open_runner: Opener, bundles: Bundles, say: Callable[[messages.Reply], None]) -> None:
        self._open_runner, self._bundles, self._say = open_runner, bundles, say
        self._waiting: messages.Open | None = None
        self._runner: LocalRunner | None = None
        # One after another, and not in the thread that reads: a relay that waits for it to read passes no answer on.
        self._control = ThreadPoolExecutor(1, thread_name_prefix="control")
        # Opening sessions replaces it by one with a thread per lane.
        self._pool = ThreadPoolExecutor(1)
        self._memory: PeakMemory | None = None
        self._lock = threading.Lock()
        self._reported_sessions = 0

    def answer(self, request: messages.Request) -> None:
        """Answer from another thread."""
        # Single batches go to the pool; timed passes do not, for they compute in its threads themselves.
        pool = self._pool if isinstance(request, messages.Run) else self._control
        pool.submit(self._reply, request).add_done_callback(self._settle)

    def _reply(self, request: messages.Request) -> messages.Reply | None:
        """Compute the reply; None where more parts of files follow."""
        try:
            match request:
                case messages.Run():
                    return self._run(request)
                case messages.Time():
                    return self._time(request)
                case messages.Multiply():
                    return self._multiply(request)
                case messages.ListDevices(number, provider):
                    return messages.Devices(number, devices_of(provider))
                case messages.Open():
                    return self._open(request)
                case messages.SendFile():
                    return self._receive(request)
                case messages.GetFacts(number):
                    return messages.Facts(number, self._opened().facts(), self._peak())
        except PipelineError as error:
            return messages.Failed(request.number, type(error).__name__, str(error))

    def _open(self, request: messages.Open) -> messages.Reply:
        spec = messages.decode_spec(request.spec)
        folder = self._bundles.find(spec.model.files)
        if folder is None:
            self._waiting = request
            return messages.MissingFiles(request.number, list(spec.model.files))
        spec = structs.replace(spec, model=structs.replace(spec.model, folder=str(folder)))
        ceiling_bytes = None
        if request.options.measured:
            probe = probe_of(spec.target)
            # Before any session takes memory.
            ceiling_bytes = ceiling(probe.read(), spec.memory_fraction)
            self._memory = PeakMemory(probe).__enter__()
        self._pool = ThreadPoolExecutor(spec.lanes, thread_name_prefix="stream")
        self._runner = self._open_runner(
            spec, request.options, lambda text: self._say(messages.Notice(-1, text))
        ).__enter__()
        if request.options.eager:
            for bucket in spec.packing.buckets:
                self._runner.open(bucket)
        return messages.Opened(request.number, ceiling_bytes)

    def _receive(self, part: messages.SendFile) -> messages.Reply | None:
        """Take part of a file; open sessions after the last."""
        self._bundles.receive(part)
        if not part.last or self._waiting is None:
            return None
        waiting, self._waiting = self._waiting, None
        self._bundles.keep(messages.decode_spec(waiting.spec).model.files)
        return self._open(waiting)

    def _run(self, request: messages.Run) -> messages.Reply:
        tokens = messages.decode_tokens(request.ids, request.lengths)
        batch = Batch(rows=np.arange(len(tokens.truncated)), size=request.size, sequence=request.sequence)
        runner = self._opened()
        vectors = runner.run(tokens, batch)
        with self._lock:
            sessions = runner.sessions[self._reported_sessions :]
            self._reported_sessions += len(sessions)
        return messages.Done(request.number, vectors.tobytes(), runner.busy_s, sessions)

    def _time(self, request: messages.Time) -> messages.Reply:
        # As a run in this process computes: all batches of a pass are handed over at once.
        work, runner = messages.timed_work(request), self._opened()
        passes, began, processor_began = 0, time.perf_counter(), time.process_time()
        while passes == 0 or time.perf_counter() - began < request.seconds:
            for _ in self._pool.map(lambda batch: runner.run(work.tokens, batch), work.batches):
                pass
            passes += 1
        seconds, processor_s = time.perf_counter() - began, time.process_time() - processor_began
        return messages.Timed(request.number, passes, seconds, processor_s, not runner.shrank, self._peak())

    def _multiply(self, request: messages.Multiply) -> messages.Reply:
        runner = self._opened()
        with tempfile.TemporaryDirectory(prefix="embedmill-products-", ignore_cleanup_errors=True) as folder:
            graph = Path(folder) / "products.onnx"
            graph.write_bytes(request.graph)
            return messages.Multiplied(request.number, fastest_product(runner.spec.model, runner.spec.target, graph))

    def _opened(self) -> LocalRunner:
        assert self._runner is not None, "nothing is open"
        return self._runner

    def _peak(self) -> PeakUsage | None:
        return None if self._memory is None else self._memory.usage()

    def _settle(self, future: Future[messages.Reply | None]) -> None:
        """Send the answer of a thread."""
        error = future.exception()
        # Not a PipelineError, so a defect of this program: the parent reports that the process ended.
        if error is not None:
            traceback.print_exception(error)
            os._exit(1)
        if (reply := future.result()) is not None:
            self._say(reply)


def _say(parent: ParentPipe, reply: messages.Reply) -> None:
    try:
        parent.say(msgspec.msgpack.encode(reply))
    except OSError:
        # The parent has ended, so this process must not outlive it.
        os._exit(1)
