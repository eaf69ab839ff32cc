"""Memory of GPUs under Windows: DXGI budgets, PDH counters."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from embedmill.engine.machine.memory.dxgi_budget import AdapterMemory, DxgiAdapter
from embedmill.engine.machine.memory.host import available_ram
from embedmill.engine.machine.memory.pdh import AdapterUse, GpuCounters
from embedmill.engine.machine.memory.probe import MemoryReading, Probe, unknown

_SOURCE = "DXGI and PDH"


class WindowsProbe(Probe):
    """Probe of one adapter, by LUID (see `DeviceFacts`).

    Belongs into the process that computes: DXGI reports a process's own budget only. `integrated` is inferred where it
    is None. `dxgi` and `pdh` are dxgi.dll and pdh.dll, by default the system's; `ram` returns available bytes of RAM.
    `close` waits `patience_s` seconds for a reading that hangs in a driver, which must not keep the run from ending.
    """

    def __init__(
        self,
        luid: int,
        *,
        integrated: bool | None = None,
        dxgi: Any = None,
        pdh: Any = None,
        ram: Callable[[], int] = available_ram,
        patience_s: float = 2.0,
    ) -> None:
        self._luid, self._integrated = luid, integrated
        self._dxgi, self._pdh = dxgi, pdh
        self._ram, self._patience_s = ram, patience_s
        self._adapter: DxgiAdapter | None = None
        self._counters: GpuCounters | None = None
        self._failed = self._no_counters = ""
        self._lock = threading.Lock()

    def read(self) -> MemoryReading:
        """Read the use of all processes, else of this one."""
        with self._lock:
            if not self._failed and self._adapter is None:
                self._open()
            if self._failed or self._adapter is None:
                return unknown(_SOURCE, self._failed)
            try:
                memory = self._adapter.read()
                ram = self._ram()
            except OSError as error:
                return unknown(_SOURCE, str(error))
            use, reason = self._read_counters()
        integrated = memory.far_budget_bytes == 0 if self._integrated is None else self._integrated
        return headroom(memory, use, integrated=integrated, ram_bytes=ram, reason=reason)

    def close(self) -> None:
        """Release adapter and counters."""
        if not self._lock.acquire(timeout=self._patience_s):
            return
        try:
            self._failed = self._failed or "the probe was closed"
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
            self._failed = str(error)
            return
        try:
            self._counters = GpuCounters(self._luid, self._pdh)
        except OSError as error:
            self._no_counters = str(error)

    def _read_counters(self) -> tuple[AdapterUse | None, str]:
        # An adapter that no process uses yet may have no counters for a while: a failure is not final.
        if self._counters is None:
            return None, self._no_counters
        try:
            return self._counters.read(), ""
        except OSError as error:
            return None, str(error)


def headroom(
    memory: AdapterMemory, use: AdapterUse | None, *, integrated: bool, ram_bytes: int, reason: str = ""
) -> MemoryReading:
    """Derive a reading; `reason` says why counters are missing.

    Free is the least of: the adapter's memory minus the use of all processes, the budget minus this process's use
    (above it Windows pages, without an error and at half the speed), and for an integrated adapter the available RAM.
    """
    if memory.budget_bytes <= 0:
        return unknown(_SOURCE, "DXGI gives this process no budget")
    frees = [memory.budget_bytes - memory.own_bytes, *([ram_bytes] if integrated else [])]
    kind = "integrated" if integrated else "discrete"
    if use is None:
        return MemoryReading(
            used_bytes=memory.own_bytes,
            free_bytes=max(0, min(frees)),
            ceiling_bytes=memory.budget_bytes,
            scope="process",
            source=f"DXGI budget, {kind}",
            own_bytes=memory.own_bytes,
            reason=f"the use of other processes is unknown: {reason}",
        )
    # An integrated adapter has system memory up to a cap, against which all committed memory counts: a run died at
    # 5,865 of 5,965 MB with 6 GB of RAM free.
    size = memory.shared_bytes if integrated else memory.dedicated_bytes
    used = use.committed_bytes if integrated else use.dedicated_bytes
    if size <= 0:
        return unknown(_SOURCE, f"DXGI reports a memory of 0 bytes for this {kind} adapter")
    return MemoryReading(
        used_bytes=used,
        free_bytes=max(0, min(size - used, *frees)),
        ceiling_bytes=size,
        scope="device",
        source=f"{_SOURCE}, {kind}",
        own_bytes=memory.own_bytes,
    )
