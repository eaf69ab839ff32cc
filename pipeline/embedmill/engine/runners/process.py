"""Runner in a host process, replaced after crashes and hangs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from typing import Self

from msgspec import structs

from embedmill.base.errors import DeviceLost
from embedmill.base.process.worker import Worker
from embedmill.base.records import Batch, FloatArray, Tokens, Work
from embedmill.engine.memory.usage import PeakUsage
from embedmill.engine.runners.base import Cancelled, RunnerFacts, RunnerOptions
from embedmill.engine.runners.client import HostClient, start_here
from embedmill.engine.runners.messages import Opened, Timed
from embedmill.engine.spec import EngineSpec

# After so many batches without a loss, the next loss counts as the first again.
_RECOVERED_BATCHES = 10


class ProcessRunner:
    """Runner with sessions in a host process; see `Runner`.

    A batch for which that process lost the device runs again in a new one, on the same target and no other.
    """

    def __init__(
        self,
        spec: EngineSpec,
        options: RunnerOptions,
        notify: Callable[[str], None],
        *,
        start: Callable[..., Worker] = start_here,
        host: HostClient | None = None,
    ) -> None:
        """Start a host by `start`, or use a started `host`."""
        self.spec = spec
        self._options = options
        self._notify = notify
        self._start = start
        self._lock = threading.Lock()
        # Of ended processes, to be added to the figures of the present one.
        self._past = RunnerFacts()
        self._past_busy_s = 0.0
        self._cancelled = False
        self._given_up: DeviceLost | None = None
        self._in_a_row = 0
        self._since = 0
        self._host = host or self._started()
        self._opened = self._host.open(spec, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        self._host.close(Cancelled())

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        """See Runner. Raises DeviceLost, ModelError for changed files."""
        while True:
            host, opened = self._host, self._opened
            try:
                opened.result()
                vectors = host.run(tokens, batch, self.spec.model.dim)
            except DeviceLost as lost:
                self._lost(host, str(lost))
                continue
            with self._lock:
                self._since += 1
            return vectors

    def open(self, timeout_s: float) -> int | None:
        """Wait for sessions; return available bytes. Raises as `run`."""
        reply = self._host.reply(self._opened, timeout_s)
        assert isinstance(reply, Opened)
        return reply.ceiling_bytes

    def time(self, work: Work, seconds: float, *, timeout_s: float) -> Timed:
        """Time passes inside the host. Raises as `run` does."""
        self._host.reply(self._opened, timeout_s)
        return self._host.time(work, seconds, timeout_s=timeout_s)

    def multiply(self, graph: bytes, *, timeout_s: float) -> float:
        """Time matrix products, in seconds. Raises as `run` does."""
        self._host.reply(self._opened, timeout_s)
        return self._host.multiply(graph, timeout_s=timeout_s)

    def peak(self) -> PeakUsage | None:
        """Return peak memory of the latest process; None: not measured."""
        return self._host.facts()[1]

    def hung(self, seconds: float) -> None:
        """Kill the process; a new one runs the open batches."""
        self._host.end(DeviceLost(f"it has not ended a batch for {seconds:g} s, which engine.timeout_s allows"))

    def cancel(self) -> None:
        """See Runner; running batches are not waited for."""
        with self._lock:
            self._cancelled = True
        self._host.end(Cancelled())

    @property
    def busy_s(self) -> float:
        """See Runner."""
        return self._past_busy_s + self._host.busy_s

    def facts(self) -> RunnerFacts:
        """See Runner. The memory is that of the latest process."""
        now, _ = self._host.facts()
        return structs.replace(now, sessions=self._past.sessions + now.sessions, losses=self._past.losses)

    def _lost(self, host: HostClient, why: str) -> None:
        """Replace a process that lost the device, or give up."""
        with self._lock:
            if self._cancelled:
                raise Cancelled
            # Another stream has replaced it already.
            if host is not self._host:
                return
            if self._given_up is not None:
                raise copy(self._given_up)
            host.close(DeviceLost(why))
            self._in_a_row = self._in_a_row + 1 if self._since < _RECOVERED_BATCHES else 1
            self._since = 0
            label = self.spec.target.label
            if self._in_a_row >= self._options.attempts:
                self._given_up = DeviceLost(self._final_message(label, why))
                raise self._given_up
            if self._in_a_row > 1:
                # A driver resets a device that computes too long: smaller batches from the second loss on.
                self._options = structs.replace(self._options, most_scale=self._options.most_scale / 2)
            self._past = RunnerFacts(sessions=self._past.sessions + host.sessions, losses=[*self._past.losses, why])
            self._past_busy_s += host.busy_s
            self._notify(f"{label} was lost ({why}); the work goes on in a new process")
            self._host = self._started()
            self._opened = self._host.open(self.spec, self._options)

    def _final_message(self, label: str, why: str) -> str:
        if self._in_a_row == 1:
            return why
        return (
            f"{label} was lost {self._in_a_row} times in a row, each time in a new process: {why}; the run can"
            " be resumed, here when the device works again, or with another --provider"
        )

    def _started(self) -> HostClient:
        return HostClient(self.spec.model.folder, notify=self._notify, start=self._start)
