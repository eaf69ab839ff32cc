"""Read memory of any GPU under Windows: DXGI and PDH."""

from __future__ import annotations

import threading
from typing import Any

from embedmill.engine.machine.memory.dxgi_budget import DxgiAdapter, Video
from embedmill.engine.machine.memory.host import available_ram
from embedmill.engine.machine.memory.pdh import Counted, GpuCounters
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown

_SOURCE = "DXGI and PDH"
# A read that hangs in a driver must not keep the run from ending.
_CLOSE_TIMEOUT_S = 2.0


class WindowsProbe(Probe):
    """Probe of one adapter, for the process that computes.

    DXGI reports a process's own budget only. `luid` is high part << 32 | low part; `integrated` None: derived from the
    budgets; `dxgi` and `pdh` default to the system's dxgi.dll and pdh.dll.
    """

    def __init__(self, luid: int, *, integrated: bool | None = None, dxgi: Any = None, pdh: Any = None) -> None:
        self._luid = luid
        self._integrated = integrated
        self._dxgi, self._pdh = dxgi, pdh
        self._adapter: DxgiAdapter | None = None
        self._counters: GpuCounters | None = None
        self._counters_error = self._error = ""
        self._lock = threading.Lock()

    def read(self) -> MemoryReading:
        """Read all processes' use; without counters only this one's."""
        with self._lock:
            if not self._error and self._adapter is None:
                self._open()
            if self._error or self._adapter is None:
                return unknown(_SOURCE, self._error)
            try:
                video = self._adapter.read()
                ram = available_ram()
            except OSError as error:
                return unknown(_SOURCE, str(error))
            counted, reason = self._count()
        # An integrated adapter has no second memory, hence no budget in one.
        integrated = video.far_budget_bytes == 0 if self._integrated is None else self._integrated
        return headroom(video, counted, integrated=integrated, ram_bytes=ram, reason=reason)

    def close(self) -> None:
        """Release adapter and counters."""
        if not self._lock.acquire(timeout=_CLOSE_TIMEOUT_S):
            return
        try:
            self._error = self._error or "the probe was closed"
            for handle in (self._adapter, self._counters):
                if handle is not None:
                    handle.close()
            self._adapter = self._counters = None
        finally:
            self._lock.release()

    def _open(self) -> None:
        try:
            self._adapter = DxgiAdapter(self._luid, self._dxgi)
        except OSError as error:
            self._error = str(error)
            return
        try:
            self._counters = GpuCounters(self._luid, self._pdh)
        except OSError as error:
            self._counters_error = str(error)

    def _count(self) -> tuple[Counted | None, str]:
        if self._counters is None:
            return None, self._counters_error
        # Counters may be without a value at first, until a process uses the adapter.
        try:
            return self._counters.read(), ""
        except OSError as error:
            return None, str(error)


def headroom(
    video: Video, counted: Counted | None, *, integrated: bool, ram_bytes: int, reason: str = ""
) -> MemoryReading:
    """Return the reading for this process; `reason` explains missing counters.

    Free is the least of: adapter memory not used by any process, budget not used by this one (above the budget Windows
    pages, without an error and at half the speed), and for an integrated adapter the available RAM.
    """
    if video.budget_bytes <= 0:
        return unknown(_SOURCE, "DXGI gives this process no budget")
    frees = [video.budget_bytes - video.own_bytes, *([ram_bytes] if integrated else [])]
    kind = "integrated" if integrated else "discrete"
    if counted is None:
        return MemoryReading(
            used_bytes=video.own_bytes,
            free_bytes=max(0, min(frees)),
            ceiling_bytes=video.budget_bytes,
            scope="process",
            source=f"DXGI budget, {kind}",
            own_bytes=video.own_bytes,
            reason=f"the use of other processes is unknown: {reason}",
        )
    # An integrated adapter may map system memory up to a cap, met while RAM is still free, and all that is committed
    # counts: a run died at 5,865 of 5,965 MB, with 6 GB of RAM free.
    size = video.shared_bytes if integrated else video.dedicated_bytes
    used = counted.committed_bytes if integrated else counted.dedicated_bytes
    if size <= 0:
        return unknown(_SOURCE, f"DXGI reports 0 bytes of memory for this {kind} adapter")
    return MemoryReading(
        used_bytes=used,
        free_bytes=max(0, min(size - used, *frees)),
        ceiling_bytes=size,
        scope="device",
        source=f"{_SOURCE}, {kind}",
        own_bytes=video.own_bytes,
    )
