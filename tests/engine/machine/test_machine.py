"""A machine is described from system files; missing facts stay empty."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from embedmill.base.errors import DeviceError
from embedmill.engine.machine import machine, processor
from embedmill.engine.machine.cgroups import lowest_cgroup_limit
from embedmill.engine.machine.machine import (
    linux_name,
    normalized_architecture,
    peak_memory_bytes,
    process_architecture,
    this_machine,
    windows_name,
    wsl_version,
)
from embedmill.engine.machine.processor import darwin_features, linux_processor, windows_features
from tests.support.trees import write

# A virtual machine on Sapphire Rapids, flags shortened.
XEON = """\
processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 207
model name	: Intel(R) Xeon(R) Processor
cpu cores	: 2
flags		: fpu vme sse4_2 fma avx f16c hypervisor avx2 avx512f avx512dq avx_vnni avx512_bf16 avx512_vnni avx512_fp16
bugs		: spectre_v1 spectre_v2

processor	: 1
vendor_id	: GenuineIntel
model name	: Intel(R) Xeon(R) Processor
flags		: fpu vme sse4_2 fma avx f16c hypervisor avx2 avx512f avx512dq avx_vnni avx512_bf16 avx512_vnni avx512_fp16
"""

# A Snapdragon X1-26-100 under WSL 2, features shortened (hrw/arm-socs-table, issue 124).
SNAPDRAGON_X = """\
processor       : 0
BogoMIPS        : 38.40
Features        : fp asimd evtstrm aes atomics fphp asimdhp cpuid lrcpc asimddp flagm frint i8mm bf16 rng
CPU implementer : 0x51
CPU architecture: 8
CPU variant     : 0x1
CPU part        : 0x001
CPU revision    : 1
"""

# One small and one big core, after a Snapdragon 685 (hrw/arm-socs-table, issue 174).
SNAPDRAGON_685 = """\
processor : 0
BogoMIPS : 38.40
Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer : 0x51
CPU part : 0x801

processor : 4
BogoMIPS : 38.40
Features : fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid asimdhp
CPU implementer : 0x41
CPU part : 0xd09

Hardware : Qualcomm Technologies, Inc SM6225
"""

# /proc/version: microsoft/WSL issues 7702, 1090 and 8361, leoheck/kiri pull request 28, and Debian's own.
WSL1 = (
    "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com) (gcc version 5.4.0 (GCC) ) "
    "#3393-Microsoft Mon Aug 14 14:52:00 PST 2023\n"
)
WSL1_OF_2016 = (
    "Linux version 3.4.0-Microsoft (Microsoft@Microsoft.com) (gcc version 4.7 (GCC) ) "
    "#1 SMP PREEMPT Wed Dec 31 14:42:53 PST 2014\n"
)
WSL2 = (
    "Linux version 5.4.72-microsoft-standard-WSL2 (oe-user@oe-host) (gcc version 8.2.0 (GCC)) "
    "#1 SMP Wed Oct 28 23:40:43 UTC 2020\n"
)
WSL2_BUILT_BY_A_USER = (
    "Linux version 4.19.104-microsoft-standard (jkp@DESKTOP-DKG6ENQ) "
    "(gcc version 7.5.0 (Ubuntu 7.5.0-3ubuntu1~18.04)) #5 SMP Mon Jun 15 23:43:17 CEST 2020\n"
)
DEBIAN = (
    "Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14) 12.2.0, "
    "GNU ld (GNU Binutils for Debian) 2.40) #1 SMP PREEMPT_DYNAMIC Debian 6.1.119-1 (2024-11-22)\n"
)
BUILT_AT_MICROSOFT = "Linux version 6.6.47 (builder@microsoft.com) (x86_64-msft-linux-gcc) #1 SMP\n"


def test_this_machine_is_described() -> None:
    found = this_machine()
    assert found.system in {"Linux", "Windows", "Darwin"}
    assert "" not in {found.architecture, found.native_architecture, found.release}
    assert found.python.startswith(".".join(map(str, sys.version_info[:3])))
    assert 0 < found.available_bytes <= found.ram_bytes
    assert found.usable_cores >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and /etc")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_machine_without_proc_is_told_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "absent"))
    with pytest.raises(DeviceError, match=r"cannot be read .*; mount /proc, which ONNX"):
        machine.this_machine(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux says")
def test_what_linux_says_is_read_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 12 if logical else None)
    files = {
        "etc/os-release": 'PRETTY_NAME="Ubuntu 24.04.1 LTS"\nNAME="Ubuntu"\n',
        "proc/cpuinfo": SNAPDRAGON_X,
        "proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2\n",
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "4294967296\n",
    }
    found = this_machine(write(tmp_path, files))
    assert (found.system, found.name, found.release) == (
        "Linux",
        "Ubuntu 24.04.1 LTS",
        "5.15.153.1-microsoft-standard-WSL2",
    )
    assert (found.wsl, found.cpu) == (2, "Qualcomm Oryon")
    assert (found.physical_cores, found.logical_cores) == (None, 12)
    assert found.cgroup_limit_bytes == 4 << 30


def test_looking_at_the_machine_loads_no_runtime() -> None:
    program = "import sys, embedmill.engine.machine.machine; print(sorted({'numpy', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_x86_processor_is_known_by_its_name_and_flags() -> None:
    model, features = linux_processor(XEON)
    assert model == "Intel(R) Xeon(R) Processor"
    assert features == (
        *("f16c", "fma", "avx", "avx2", "avx_vnni"),
        *("avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    )


def test_an_arm_processor_is_known_by_maker_and_part() -> None:
    assert linux_processor(SNAPDRAGON_X) == ("Qualcomm Oryon", ("asimd", "asimdhp", "asimddp", "i8mm", "bf16"))


def test_unlike_cores_are_all_named_and_only_what_all_have_counts() -> None:
    assert linux_processor(SNAPDRAGON_685) == ("Qualcomm part 0x801, ARM part 0xd09", ("asimd",))


@pytest.mark.parametrize("text", ["", "nonsense", "processor\t: 0\n", "processor: 0\nCPU implementer: x\nCPU part: y"])
def test_a_processor_that_is_not_described_is_left_open(text: str) -> None:
    assert linux_processor(text) == ("", ())


def test_windows_is_asked_for_each_feature() -> None:
    there = {19, 40, 43, 66}
    assert windows_features(there.__contains__) == ("avx2", "asimd", "asimddp", "i8mm")


def test_features_of_macos_get_the_names_of_linux() -> None:
    listing = "hw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_SME: 0\nhw.optional.AdvSIMD: 1\nhw.optional.x: 1\n"
    assert darwin_features(listing) == ("asimd", "bf16")
    assert darwin_features("hw.optional.avx2_0: 1\nhw.optional.avx512f: 0\n") == ("avx2",)


def test_a_missing_sysctl_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", missing)
    assert processor.sysctl("hw.optional") == ""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (WSL1, 1),
        (WSL1_OF_2016, 1),
        (WSL2, 2),
        (WSL2_BUILT_BY_A_USER, 2),
        (DEBIAN, 0),
        (BUILT_AT_MICROSOFT, 0),
        ("", 0),
    ],
)
def test_wsl_is_known_by_its_kernel(tmp_path: Path, version: str, expected: int) -> None:
    assert wsl_version(write(tmp_path, {"proc/version": version})) == expected


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("4.4.0-19041-Microsoft", 1),
        ("5.15.153.1-microsoft-standard-WSL2", 2),
        ("6.1.9-locietta-WSL2-xanmod1", 2),
        ("6.5.0-1025-azure", 0),
    ],
)
def test_wsl_is_known_by_its_release(tmp_path: Path, release: str, expected: int) -> None:
    assert wsl_version(write(tmp_path, {"proc/sys/kernel/osrelease": f"{release}\n"})) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("AMD64", "x86_64"), ("x86_64", "x86_64"), ("aarch64", "arm64"), ("ARM64", "arm64"), ("riscv64", "riscv64")],
)
def test_architectures_have_one_name_each(name: str, expected: str) -> None:
    assert normalized_architecture(name) == expected


@pytest.mark.parametrize(
    ("tag", "machine_name", "bits", "expected"),
    [
        # Python 3.12 and later for x64, emulated on a Snapdragon: the system says ARM64, wheels are those of x64.
        ("win-amd64", "ARM64", 64, "x86_64"),
        ("win-arm64", "ARM64", 64, "arm64"),
        ("win32", "AMD64", 32, "x86"),
        ("linux-x86_64", "x86_64", 64, "x86_64"),
        ("linux-aarch64", "aarch64", 64, "arm64"),
        ("linux-aarch64", "aarch64", 32, "armv7l"),
        ("macosx-11.0-universal2", "arm64", 64, "arm64"),
    ],
)
def test_the_process_has_the_architecture_of_its_wheels(tag: str, machine_name: str, bits: int, expected: str) -> None:
    assert process_architecture(tag, machine_name, bits) == expected


def test_windows_11_is_known_by_its_build() -> None:
    assert [windows_name(19045), windows_name(22000), windows_name(26100)] == ["Windows 10", "Windows 11", "Windows 11"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"etc/os-release": 'NAME="Alpine Linux"\n'}, "Alpine Linux"),
        ({"usr/lib/os-release": "PRETTY_NAME='Fedora Linux 41'\nodd line\n"}, "Fedora Linux 41"),
        ({}, ""),
    ],
)
def test_a_distribution_names_itself(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert linux_name(write(tmp_path, files)) == expected


def test_the_least_limit_of_nested_groups_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/user.slice/job.scope\n",
        "sys/fs/cgroup/user.slice/memory.max": "2147483648\n",
        "sys/fs/cgroup/user.slice/job.scope/memory.max": "max\n",
    }
    assert lowest_cgroup_limit(write(tmp_path, files)) == 2 << 30


@pytest.mark.parametrize(("limit", "expected"), [("1073741824", 1 << 30), ("9223372036854771712", None)])
def test_the_limit_of_cgroup_v1_is_read(tmp_path: Path, limit: str, expected: int | None) -> None:
    files = {
        "proc/self/cgroup": "5:devices:/\n4:cpu,memory:/docker/abc\n0::/docker/abc\n",
        # A container has its own group where the host has the root.
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{limit}\n",
    }
    assert lowest_cgroup_limit(write(tmp_path, files)) == expected


def test_a_group_outside_the_namespace_is_not_followed(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/../../other\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/other/memory.max": "1\n",
        "other/memory.max": "1\n",
    }
    assert lowest_cgroup_limit(write(tmp_path, files)) is None


@pytest.mark.parametrize("text", ["", "0", "nonsense\n", "0::/a\n"])
def test_no_group_is_no_limit(tmp_path: Path, text: str) -> None:
    assert lowest_cgroup_limit(write(tmp_path, {"proc/self/cgroup": text})) is None


@pytest.mark.parametrize(("limit", "expected"), [(8 << 30, 8 << 30), (None, None)])
def test_the_address_space_limit_is_read(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, expected: int | None
) -> None:
    resource = pytest.importorskip("resource")
    found = resource.RLIM_INFINITY if limit is None else limit
    monkeypatch.setattr(resource, "getrlimit", lambda _: (found, resource.RLIM_INFINITY))
    assert machine._address_space_limit() == expected


def test_the_peak_of_memory_is_in_bytes() -> None:
    assert 10 << 20 < peak_memory_bytes() < 64 << 30
