"""Description of this machine: system, processor, memory and limits.

What the system does not report is empty or None; nothing here raises for it.
"""

from __future__ import annotations

import platform
import struct
import sys
import sysconfig
from pathlib import Path

import psutil
from msgspec import Struct

from embedmill.base.errors import DeviceError
from embedmill.engine.machine.cgroups import lowest_cgroup_limit
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.machine.processor import processor, sysctl
from embedmill.engine.machine.procfs import read_text

_SYSTEMS = {"linux": "Linux", "win32": "Windows", "darwin": "Darwin"}
_ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
# A 64-bit kernel reports its own name to 32-bit processes too.
_IN_32_BITS = {"x86_64": "i686", "arm64": "armv7l"}
# IMAGE_FILE_MACHINE_* (winnt.h).
_IMAGE_MACHINES = {0x014C: "x86", 0x8664: "x86_64", 0xAA64: "arm64"}


class Machine(Struct, frozen=True, kw_only=True):
    """One machine, from within this process.

    system                     Linux, Windows, Darwin, or Python's name of another one
    name, release              distribution or edition; version of the kernel or of Windows
    architecture               of this process, which wheels must match: x86_64, arm64, or the system's own name
    native_architecture        of the hardware; differs in an emulated or 32-bit process
    wsl                        version of the Windows Subsystem for Linux, 0 outside it
    python                     version of the interpreter
    cpu, cpu_features          model, and those of `processor.FEATURES` that the system reports
    physical_cores             None where the system does not say, as `logical_cores`
    usable_cores               see `cores.usable_cores`
    ram_bytes                  of the machine; under WSL 2 of its virtual machine
    available_bytes            RAM available now without swapping
    cgroup_limit_bytes         lowest memory limit of this process's control groups
    address_space_limit_bytes  RLIMIT_AS
    """

    system: str
    name: str
    release: str
    architecture: str
    native_architecture: str
    wsl: int
    python: str
    cpu: str
    cpu_features: tuple[str, ...]
    physical_cores: int | None
    logical_cores: int | None
    usable_cores: int
    ram_bytes: int
    available_bytes: int
    cgroup_limit_bytes: int | None
    address_space_limit_bytes: int | None


def this_machine(root: Path = Path("/")) -> Machine:
    """Describe this machine; `root` holds /proc, /sys and /etc.

    Raises DeviceError where its memory cannot be read, as without /proc.
    """
    name, release = _name(root)
    cpu, features = processor(read_text(root / "proc/cpuinfo"))
    try:
        memory = psutil.virtual_memory()
    except OSError as error:
        raise DeviceError(
            f"the memory of this machine cannot be read ({error}); mount /proc, which ONNX Runtime needs too"
        ) from error
    return Machine(
        system=_SYSTEMS.get(sys.platform, sys.platform),
        name=name,
        release=release,
        architecture=process_architecture(),
        native_architecture=_native_architecture(),
        wsl=wsl_version(root),
        python=platform.python_version(),
        cpu=cpu,
        cpu_features=features,
        physical_cores=psutil.cpu_count(logical=False),
        logical_cores=psutil.cpu_count(),
        usable_cores=usable_cores(root / "sys/fs/cgroup"),
        ram_bytes=memory.total,
        available_bytes=memory.available,
        cgroup_limit_bytes=lowest_cgroup_limit(root),
        address_space_limit_bytes=_address_space_limit(),
    )


def normalized_architecture(machine: str) -> str:
    """Return x86_64 or arm64 for aliases, other names unchanged."""
    return _ARCHITECTURES.get(machine.lower(), machine)


def process_architecture(tag: str | None = None, machine: str | None = None, bits: int | None = None) -> str:
    """Return the architecture of wheels for this process.

    `tag` is `sysconfig.get_platform()`, `machine` is `platform.machine()`, `bits` those of a pointer; by default
    this interpreter's.
    """
    tag = tag or sysconfig.get_platform()
    # Under Windows the tag counts (`win-amd64`): since Python 3.12 `platform.machine()` reports the hardware there,
    # ARM64 in an emulated x64 process.
    if tag.startswith("win"):
        return normalized_architecture(tag.partition("-")[2]) or "x86"
    found = normalized_architecture(machine or platform.machine())
    return _IN_32_BITS.get(found, found) if (bits or struct.calcsize("P") * 8) == 32 else found


def _native_architecture() -> str:
    if sys.platform == "win32":
        import ctypes

        kernel = ctypes.WinDLL("kernel32")
        process, native = ctypes.c_ushort(), ctypes.c_ushort()
        # Since Windows 10 1709. The handle is that of this process (GetCurrentProcess).
        query = getattr(kernel, "IsWow64Process2", None)
        if query and query(ctypes.c_void_p(-1), ctypes.byref(process), ctypes.byref(native)):
            return _IMAGE_MACHINES.get(native.value, f"{native.value:#06x}")
    if sys.platform == "darwin" and sysctl("-n", "sysctl.proc_translated") == "1":
        return "arm64"  # Rosetta 2
    return normalized_architecture(platform.machine())


def wsl_version(root: Path) -> int:
    """Return the WSL version (1 or 2), 0 outside WSL."""
    # WSL 1 reports `4.4.0-19041-Microsoft`, in its first releases only in /proc/version. WSL 2 reports
    # `5.15.90.1-microsoft-standard-WSL2`, before 2020 without `-WSL2`; custom kernels keep one of the two words.
    release, version = read_text(root / "proc/sys/kernel/osrelease"), read_text(root / "proc/version")
    # The brackets that follow name the builder of the kernel and the compiler.
    own = f"{release} {version.partition('(')[0]}"
    if "WSL2" in own or "microsoft" in own:
        return 2
    return 1 if "Microsoft" in own else 0


def _name(root: Path) -> tuple[str, str]:
    if sys.platform == "win32":
        found = sys.getwindowsversion()
        name = windows_name(found.build) if found.product_type == 1 else "Windows Server"
        return name, f"{found.major}.{found.minor}.{found.build}"
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}", platform.release()
    return linux_name(root), read_text(root / "proc/sys/kernel/osrelease") or platform.release()


def windows_name(build: int) -> str:
    """Return the edition of a build."""
    # Both report version 10.0; the builds of Windows 11 begin at 22000.
    return "Windows 11" if build >= 22000 else "Windows 10"


def linux_name(root: Path) -> str:
    """Return PRETTY_NAME or NAME of os-release, else nothing."""
    text = read_text(root / "etc/os-release") or read_text(root / "usr/lib/os-release")
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return (fields.get("PRETTY_NAME") or fields.get("NAME", "")).strip("\"'")


def _address_space_limit() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
