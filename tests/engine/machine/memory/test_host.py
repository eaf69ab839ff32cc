"""Free memory is the least that RAM, control groups and resource limits leave."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from embedmill.engine.machine.memory.host import HostProbe, available_ram
from tests.support.readings import GIB, MIB
from tests.support.trees import write

STATUS = "Name:\tpython\nVmPeak:\t  900000 kB\nVmSize:\t  800000 kB\nVmRSS:\t  204800 kB\nVmData:\t  300000 kB\n"
CGROUP = {
    "proc/self/cgroup": "0::/job\n",
    "sys/fs/cgroup/job/memory.max": f"{2 * GIB}\n",
    "sys/fs/cgroup/job/memory.current": f"{GIB}\n",
}
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has these limits")


@pytest.fixture(autouse=True)
def ram(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 GiB, 6 of them available."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GIB, available=6 * GIB))


def limit(monkeypatch: pytest.MonkeyPatch, name: str, size: int) -> None:
    import resource

    wanted = getattr(resource, name)
    real = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (size, size) if kind == wanted else real(kind))


def test_ram_is_the_bound_where_there_is_no_other(tmp_path: Path) -> None:
    found = HostProbe(write(tmp_path, {"proc/self/status": STATUS})).read()
    assert (found.free_bytes, found.ceiling_bytes, found.source) == (6 * GIB, 16 * GIB, "RAM")
    assert (found.used_bytes, found.own_bytes, found.scope) == (200 * MIB, 200 * MIB, "process")
    assert found.others_bytes == 10 * GIB - 200 * MIB


def test_a_tighter_control_group_is_the_bound(tmp_path: Path) -> None:
    found = HostProbe(write(tmp_path, {"proc/self/status": STATUS} | CGROUP)).read()
    assert (found.free_bytes, found.ceiling_bytes) == (GIB, 2 * GIB)
    assert found.source == "cgroup v2 /job (memory.max)"


def test_a_wider_control_group_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * GIB, available=GIB // 2))
    assert HostProbe(write(tmp_path, CGROUP)).read().source == "RAM"


@linux
@pytest.mark.parametrize(("name", "used"), [("RLIMIT_AS", 800000 << 10), ("RLIMIT_DATA", 300000 << 10)])
def test_a_tighter_resource_limit_is_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, used: int
) -> None:
    limit(monkeypatch, name, GIB)
    found = HostProbe(write(tmp_path, {"proc/self/status": STATUS})).read()
    assert (found.free_bytes, found.ceiling_bytes, found.source) == (GIB - used, GIB, name)
    assert found.others_bytes == 0


@linux
def test_a_resource_limit_whose_use_is_not_told_makes_it_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, "RLIMIT_AS", 64 * GIB)
    found = HostProbe(tmp_path).read()
    assert (found.free_bytes, found.scope) == (None, "unknown")
    assert "VmSize" in found.reason


def test_a_control_group_whose_use_is_not_told_makes_it_unknown(tmp_path: Path) -> None:
    files = {name: text for name, text in CGROUP.items() if not name.endswith("current")}
    found = HostProbe(write(tmp_path, files)).read()
    assert (found.free_bytes, found.scope) == (None, "unknown")
    assert "memory.current" in found.reason


def test_a_system_that_promises_no_more_than_it_has_is_believed(tmp_path: Path) -> None:
    files = {
        "proc/sys/vm/overcommit_memory": "2\n",
        "proc/meminfo": "MemTotal: 16777216 kB\nCommitLimit:    10485760 kB\nCommitted_AS:    9437184 kB\n",
    }
    found = HostProbe(write(tmp_path, files)).read()
    assert (found.free_bytes, found.source) == (GIB, "CommitLimit")
    (tmp_path / "proc/sys/vm/overcommit_memory").write_text("0\n")
    assert HostProbe(tmp_path).read().source == "RAM"


def test_a_system_that_does_not_say_how_much_is_left_makes_it_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise OSError("no /proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", fails)
    assert HostProbe(tmp_path).read().reason == "no /proc/meminfo"


def test_without_proc_psutil_tells_what_this_process_uses(tmp_path: Path) -> None:
    found = HostProbe(tmp_path).read()
    assert found.own_bytes is not None
    assert 5 * MIB < found.own_bytes < 16 * GIB


def test_a_closed_probe_is_unknown(tmp_path: Path) -> None:
    probe = HostProbe(tmp_path)
    probe.close()
    probe.close()
    assert probe.read().reason == "the probe was closed"


def test_available_ram_is_what_the_system_says() -> None:
    assert available_ram() == 6 * GIB
