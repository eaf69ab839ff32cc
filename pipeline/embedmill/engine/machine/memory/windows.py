"""Memory of a GPU under Windows, whoever made it: DXGI's sizes and budgets with PDH's counters of all processes."""

from __future__ import annotations

import threading
from typing import Any

from embedmill.engine.machine.memory.dxgi_budget import DxgiAdapter, Video
from embedmill.engine.machine.memory.host import available_ram
from embedmill.engine.machine.memory.pdh import Counted, GpuCounters
from embedmill.engine.machine.memory.reading import MemoryReading, Probe, unknown

_SOURCE = "DXGI and PDH"
# A look that hangs in a driver must not keep the run from ending.
_PATIENCE_S = 2.0


class WindowsProbe(Probe):
    """One adapter, by its LUID (high part << 32 | low part).

    It must look from the process that computes, for DXGI tells a process its own budget. `integrated` is concluded
    where it is None. `dxgi` and `pdh` are dxgi.dll and pdh.dll, by default the system's.
    """

    def __init__(self, luid: int, *, integrated: bool | None = None, dxgi: Any = None, pdh: Any = None) -> None:
        self._luid = luid
        self._integrated = integrated
        self._dxgi, self._pdh = dxgi, pdh
        self._adapter: DxgiAdapter | None = None
        self._counters: GpuCounters | None = None
        self._uncounted = ""
        self._failed = ""
        self._lock = threading.Lock()

    def read(self) -> MemoryReading:
        """The use of all processes; this one's only, against its budget, where there are no counters."""
        with self._lock:
            if not self._failed and self._adapter is None:
                self._open()
            if self._failed or self._adapter is None:
                return unknown(_SOURCE, self._failed)
            try:
                video = self._adapter.read()
                ram = available_ram()
            except OSError as error:
                return unknown(_SOURCE, str(error))
            counted, reason = self._count()
        integrated = video.far_budget_bytes == 0 if self._integrated is None else self._integrated
        return headroom(video, counted, integrated=integrated, ram_bytes=ram, reason=reason)

    def close(self) -> None:
        """Give adapter and counters back."""
        if not self._lock.acquire(timeout=_PATIENCE_S):
            return
        try:
            self._failed = self._failed or "the probe was closed"
            for held in (self._adapter, self._counters):
                if held is not None:
                    held.close()
            self._adapter = self._counters = None
        finally:
            self._lock.release()

    def _open(self) -> None:
        try:
            self._adapter = DxgiAdapter(self._luid, self._dxgi)
        except OSError as error:
            self._failed = str(error)
            return
        try:
            self._counters = GpuCounters(self._luid, self._pdh)
        except OSError as error:
            self._uncounted = str(error)

    def _count(self) -> tuple[Counted | None, str]:
        """The counters, or why there are none; an adapter that no one uses yet may have none for a while."""
        if self._counters is None:
            return None, self._uncounted
        try:
            return self._counters.read(), ""
        except OSError as error:
            return None, str(error)


def headroom(
    video: Video, counted: Counted | None, *, integrated: bool, ram_bytes: int, reason: str = ""
) -> MemoryReading:
    """What an adapter's figures mean for this process; `reason` is why nothing was counted.

    Free is the least of: the adapter's memory without what all processes use of it, the budget without what this one
    uses, and for an integrated adapter the RAM that is available. Its memory is the machine's, up to a cap that is
    reached while RAM is free, and all that is promised counts (a run died at 5,865 of 5,965 MB, with 6 GB of RAM free).
    Above the budget Windows pages, without an error and at half the speed.
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
            reason=f"the use of other processes is not known: {reason}",
        )
    size = video.shared_bytes if integrated else video.dedicated_bytes
    used = counted.committed_bytes if integrated else counted.dedicated_bytes
    if size <= 0:
        return unknown(_SOURCE, f"DXGI tells a memory of 0 bytes for this {kind} adapter")
    return MemoryReading(
        used_bytes=used,
        free_bytes=max(0, min(size - used, *frees)),
        ceiling_bytes=size,
        scope="device",
        source=f"{_SOURCE}, {kind}",
        own_bytes=video.own_bytes,
    )
