"""Client of a host process: near end of the protocol."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from copy import copy
from pathlib import Path
from typing import Self

import msgspec
import numpy as np

from embedmill.base.errors import DeviceError, DeviceLost, ModelError, OutOfMemory, OutputError
from embedmill.base.process.worker import Worker, WorkerEnded, worker_of
from embedmill.base.records import Batch, FloatArray, Tokens, Work
from embedmill.base.results import SessionFacts
from embedmill.base.signals import slices
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.engine.memory.usage import PeakUsage
from embedmill.engine.runners import messages
from embedmill.engine.runners.base import Cancelled, RunnerFacts, RunnerOptions
from embedmill.engine.spec import EngineSpec

HOST = "embedmill.engine.runners.host"
# Facts are read at the end of a run, which must not wait for a host that hangs.
_FACTS_S = 5.0
# Loading a plugin library with its driver takes seconds, on a cold disk many.
DEVICES_S = 120.0
# Weights may be gigabytes: a frame holds no more than this.
_PART_BYTES = 4 << 20
# Errors travel by class name; an unknown one becomes a DeviceError.
_ERRORS = {kind.__name__: kind for kind in (DeviceError, OutOfMemory, DeviceLost, ModelError, OutputError)}


_OTHER_VERSION = "the worker speaks protocol {}, and this embedmill {}: install both in the same version"


def start_here(*folders: str) -> Worker:
    """Start a host process of this machine. Raises WorkerEnded."""
    return worker_of(HOST, *folders)


class HostClient:
    """Thread-safe client of one host process, started with the client."""

    def __init__(
        self, *folders: str, notify: Callable[[str], None] = lambda _: None, start: Callable[..., Worker] = start_here
    ) -> None:
        """Start a host for bundles in `folders`. Raises DeviceLost."""
        self._notify = notify
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[messages.Reply]] = {}
        self._next_number = 0
        self._over: Exception | None = None
        self._greeted = False
        self._model_folder = Path()
        self.busy_s = 0.0
        self.sessions: list[SessionFacts] = []
        try:
            self._worker = start(*folders)
        except WorkerEnded as error:
            raise DeviceLost(f"its process {error}") from error
        self._worker.listen(self._receive)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close(Cancelled())

    def devices(self, provider: Provider, *, timeout_s: float = DEVICES_S) -> list[Device]:
        """List a provider's devices in the runtime's order. Raises DeviceError."""
        reply = self.reply(self.ask(lambda number: messages.ListDevices(number, provider)), timeout_s)
        assert isinstance(reply, messages.Devices)
        return reply.devices

    def open(self, spec: EngineSpec, options: RunnerOptions) -> Future[messages.Reply]:
        """Request Opened without waiting, sending files that the host lacks."""
        self._model_folder = Path(spec.model.folder)
        return self.ask(lambda number: messages.Open(number, messages.encode_spec(spec), options))

    def run(self, tokens: Tokens, batch: Batch, dim: int) -> FloatArray:
        """Compute a batch: float32 [texts, dim]. Raises as a runner."""
        ids, lengths = messages.encode_rows(tokens, batch.rows)
        reply = self.ask(lambda number: messages.Run(number, ids, lengths, batch.size, batch.sequence)).result()
        assert isinstance(reply, messages.Done)
        return np.frombuffer(reply.vectors, np.float32).reshape(-1, dim)

    def time(self, work: Work, seconds: float, *, timeout_s: float) -> messages.Timed:
        """Time passes for at least `seconds`. Raises as `run` does."""
        reply = self.reply(self.ask(lambda number: messages.time_request(number, work, seconds)), timeout_s)
        assert isinstance(reply, messages.Timed)
        return reply

    def multiply(self, graph: bytes, *, timeout_s: float) -> float:
        """Time matrix products, in seconds. Raises as `run` does."""
        reply = self.reply(self.ask(lambda number: messages.Multiply(number, graph)), timeout_s)
        assert isinstance(reply, messages.Multiplied)
        return reply.seconds

    def facts(self) -> tuple[RunnerFacts, PeakUsage | None]:
        """Return facts and peak memory; without an answer only sessions."""
        try:
            reply = self.ask(messages.GetFacts).result(_FACTS_S)
        except (TooLate, DeviceError, Cancelled):
            return RunnerFacts(sessions=self.sessions), None
        assert isinstance(reply, messages.Facts)
        return reply.facts, reply.peak

    def ask(self, request: Callable[[int], messages.Request]) -> Future[messages.Reply]:
        """Send `request(number)` and return the future of a reply."""
        future: Future[messages.Reply] = Future()
        with self._lock:
            if self._over is not None:
                future.set_exception(copy(self._over))
                return future
            number, self._next_number = self._next_number, self._next_number + 1
            self._waiting[number] = future
        self._send(request(number))
        return future

    def reply(self, future: Future[messages.Reply], timeout_s: float) -> messages.Reply:
        """Wait for replies; kill late processes and raise DeviceLost."""
        for seconds in slices(timeout_s):
            with suppress(TooLate):
                return future.result(seconds)
        self.end(DeviceLost(f"its process did not answer in {timeout_s:g} s"))
        return future.result()

    def end(self, why: Exception) -> None:
        """Kill the process and fail open requests with `why`."""
        self._fail(why)
        self._worker.end()

    def close(self, why: Exception) -> None:
        """Kill the process and close the pipes."""
        self.end(why)
        self._worker.__exit__()

    def _send(self, request: messages.Request) -> None:
        try:
            self._worker.send(msgspec.msgpack.encode(request))
        except WorkerEnded:
            # The reading thread also sees the end, and fails all that waits.
            return

    def _receive(self, frame: bytes | None) -> None:
        if self._over is not None:
            return
        if frame is None:
            self._fail(DeviceLost(f"its process {self._worker.ending()}"))
            return
        try:
            reply = messages.decode_reply(frame)
        except msgspec.DecodeError:
            self._fail(DeviceError(_OTHER_VERSION.format("another", messages.PROTOCOL)))
            return
        match reply:
            case messages.Hello(_, messages.PROTOCOL):
                self._greeted = True
            case messages.Hello(_, protocol):
                self._fail(DeviceError(_OTHER_VERSION.format(protocol, messages.PROTOCOL)))
            case _ if not self._greeted:
                self._fail(DeviceError(_OTHER_VERSION.format("another", messages.PROTOCOL)))
            case messages.Notice(_, text):
                self._notify(text)
            case messages.MissingFiles(number, names):
                # Not in the thread that reads: a relay that waits for it to read passes nothing on.
                threading.Thread(target=self._send_files, args=[number, names], name="files", daemon=True).start()
            case messages.Failed(number, error, message):
                self._settled(number).set_exception(_ERRORS.get(error, DeviceError)(message))
            case _:
                if isinstance(reply, messages.Done):
                    self.busy_s = reply.busy_s
                    self.sessions += reply.sessions
                self._settled(reply.number).set_result(reply)

    def _send_files(self, number: int, names: list[str]) -> None:
        # One part behind, for only the very last part may say so.
        last: tuple[str, bytes] | None = None
        try:
            for part in self._parts(names):
                if last is not None:
                    self._send(messages.SendFile(number, *last, False))
                last = part
        except OSError as error:
            self._fail(ModelError(f"{error.filename} cannot be read: {error.strerror}; add the model again"))
            return
        if last is not None:
            self._send(messages.SendFile(number, *last, True))

    def _parts(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with (self._model_folder / name).open("rb") as file:
                while block := file.read(_PART_BYTES):
                    yield name, block

    def _settled(self, number: int) -> Future[messages.Reply]:
        with self._lock:
            # A request that failed meanwhile has no future any more: its late reply goes nowhere.
            return self._waiting.pop(number, Future())

    def _fail(self, why: Exception) -> None:
        with self._lock:
            self._over = self._over or why
            waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            future.set_exception(copy(self._over))
