"""Limits of a control group and its ancestors apply; the page cache does not count as use."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedmill.engine.machine.cgroups import MemoryLimit, cgroup_limits
from tests.support.readings import GIB, MIB
from tests.support.trees import write

# A virtual machine with v1 and v2 side by side (hybrid), as its kernel 6.18 shows itself; shortened.
HYBRID = "9:name=systemd:/\n8:pids:/\n4:memory:/jobs/7ee1\n3:cpuset:/\n2:cpuacct:/\n1:cpu:/\n0::/\n"
V1_STAT = """\
cache 4096
mapped_file 0
total_cache 3859628032
total_rss 548741120
total_shmem 9068544
total_mapped_file 212635648
total_dirty 2068480
total_writeback 0
total_workingset_refault_file 4644875
total_inactive_file 2112221184
total_active_file 1738350592
total_unevictable 15323136
"""
NO_LIMIT = "9223372036854771712\n"
V1_CACHE = 2112221184 + 1738350592 - 212635648 - 2068480
V2_STAT = """\
anon 1073741824
file 3221225472
shmem 4096
file_mapped 104857600
file_dirty 1048576
file_writeback 4096
inactive_file 2147483648
active_file 1073741824
"""
V2_CACHE = 2147483648 + 1073741824 - 104857600 - 1048576 - 4096


def v2(folder: str, most: str, current: int, **files: str) -> dict[str, str]:
    mount = "sys/fs/cgroup" + folder
    named = {name.replace("_", ".", 1): text for name, text in files.items()}
    own = {"memory.max": most + "\n", "memory.current": f"{current}\n", **named}
    return {f"{mount}/{name}": text for name, text in own.items()}


def bounds(root: Path, files: dict[str, str]) -> list[MemoryLimit]:
    return list(cgroup_limits(write(root, files)))


def test_v2_does_not_count_the_cache_that_the_kernel_gives_up(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n"} | v2("", f"{8 * GIB}", 7 * GIB, memory_stat=V2_STAT)
    (found,) = bounds(tmp_path, files)
    assert found == MemoryLimit(source="cgroup v2 / (memory.max)", limit_bytes=8 * GIB, used_bytes=7 * GIB - V2_CACHE)
    assert found.free_bytes == GIB + V2_CACHE


def test_v1_counts_the_groups_below_too(tmp_path: Path) -> None:
    mount = "sys/fs/cgroup/memory/jobs/7ee1"
    files = {
        "proc/self/cgroup": HYBRID,
        f"{mount}/memory.limit_in_bytes": f"{6 * GIB}\n",
        f"{mount}/memory.usage_in_bytes": f"{5 * GIB}\n",
        f"{mount}/memory.stat": V1_STAT,
        "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
    }
    (found,) = bounds(tmp_path, files)
    assert found == MemoryLimit(
        source="cgroup v1 /jobs/7ee1 (memory.limit_in_bytes)", limit_bytes=6 * GIB, used_bytes=5 * GIB - V1_CACHE
    )


def test_every_group_above_counts_the_tightest_one_too(tmp_path: Path) -> None:
    """Sibling groups fill the common parent."""
    files = {"proc/self/cgroup": "0::/pods/burst/job\n"}
    files |= v2("/pods/burst/job", f"{4 * GIB}", GIB)
    files |= v2("/pods/burst", f"{16 * GIB}", 15 * GIB)
    files |= v2("/pods", "max", 20 * GIB)
    found = {one.source: one.free_bytes for one in bounds(tmp_path, files)}
    assert found == {
        "cgroup v2 /pods/burst/job (memory.max)": 3 * GIB,
        "cgroup v2 /pods/burst (memory.max)": GIB,
    }


def test_v2_is_kept_below_the_limit_that_slows_it_down(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/a\n"} | v2("/a", f"{8 * GIB}", 2 * GIB, memory_high=f"{3 * GIB}\n")
    found = {one.source: one.free_bytes for one in bounds(tmp_path, files)}
    assert found == {"cgroup v2 /a (memory.max)": 6 * GIB, "cgroup v2 /a (memory.high)": GIB}


def test_a_container_finds_its_own_group_as_the_root(tmp_path: Path) -> None:
    """/proc shows the host's path; v1 mounts the group itself, v2 hides the ancestors."""
    files = {"proc/self/cgroup": "0::/../../kubepods/pod1\n"} | v2("", f"{2 * GIB}", GIB)
    assert [one.free_bytes for one in bounds(tmp_path / "v2", files)] == [GIB]
    files = {
        "proc/self/cgroup": "5:cpu,memory:/docker/3f1\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GIB}",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GIB}",
    }
    assert [one.source for one in bounds(tmp_path / "v1", files)] == ["cgroup v1 / (memory.limit_in_bytes)"]


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n"} | v2("", f"{GIB}", GIB + 5 * MIB)
    assert [one.free_bytes for one in bounds(tmp_path, files)] == [0]


@pytest.mark.parametrize("text", ["", "0::/\n", HYBRID, "nonsense\n", "1:memory\n"])
def test_without_a_limit_there_is_no_bound(tmp_path: Path, text: str) -> None:
    files = {"proc/self/cgroup": text, "sys/fs/cgroup/memory.max": "max\n"}
    assert bounds(tmp_path, files | {"sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT}) == []


def test_a_limit_whose_use_is_not_told_is_an_error_not_a_number(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}
    with pytest.raises(ValueError, match=r"memory\.current cannot be read"):
        bounds(tmp_path, files)
