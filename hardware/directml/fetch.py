"""What is fetched, from where, and how it is known to be the right thing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from msgspec import Struct

from hardware.directml.errors import SetupError

SUITE = "trixie"
# What a Windows user of embedmill installs. The wheel is the same for every Python as far as its DLLs go.
RUNTIME = "onnxruntime-directml==1.24.4"
_PYTHON = "3.11"
# As root: apt's own user cannot write to the scratch folder.
_APT_HELPER = ["/usr/lib/apt/apt-helper", "-o", "APT::Sandbox::User=root", "download-file"]
# Every file that Debian ever had, by its SHA-1: for the day when the mirrors have moved on.
_SNAPSHOT = "https://snapshot.debian.org/file/"


class Pinned(Struct, frozen=True, kw_only=True):
    """A package of a suite that moves: its path below the mirror, and its checksums."""

    path: str
    sha256: str
    sha1: str


# vkd3d 2.x is in no released suite; these are of testing (forky), October 2026.
VKD3D = (
    Pinned(
        path="pool/main/v/vkd3d/libvkd3d1_2.1+ds-1_amd64.deb",
        sha256="225be332cf0edbfc4be58670b54938fd7c5729ca1094acb5da01ceacb6ab8884",
        sha1="02bfed15be0626789cc89307b2105896ca583f1b",
    ),
    Pinned(
        path="pool/main/v/vkd3d/libvkd3d-shader1_2.1+ds-1_amd64.deb",
        sha256="af2260d53778c2e86c104d8d31d5c20feaa34c795ddc28ff1467cc6d0d0041f3",
        sha1="66a9e6ccc39e828fe569188ea258e74388346fb6",
    ),
    Pinned(
        path="pool/main/v/vkd3d/libvkd3d-headers_2.1+ds-1_all.deb",
        sha256="2dca10553c52bde5e1861f582e6d1f77b8c488e93fa78562e97b1c895b0f41b0",
        sha1="42058aa45d5974186198736c2eba2d26f5186517",
    ),
)


def mirror() -> str:
    """The Debian mirror that this machine's apt uses. Raises SetupError where there is none."""
    for filters in (["Origin: Debian", "Label: Debian"], []):
        command = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", *filters]
        for site in dict.fromkeys(run(command).split()):
            if site.startswith("http") and "security" not in site:
                return site.rstrip("/")
    raise SetupError("apt's configuration names no Debian mirror; name one with --mirror")


def debian(package: Pinned, site: str, folder: Path) -> Path:
    """The package, from the mirror or else from Debian's archive of everything; apt checks its SHA-256."""
    file = folder / package.path.rpartition("/")[2]
    failures = []
    for url in (f"{site}/{package.path}", _SNAPSHOT + package.sha1):
        try:
            run([*_APT_HELPER, url, str(file), f"SHA256:{package.sha256}"])
        except SetupError as error:
            failures.append(str(error))
        else:
            return file
    raise SetupError(f"{file.name} is on neither the mirror nor snapshot.debian.org: {'; '.join(failures)}")


def runtime(requirement: str, folder: Path) -> Path:
    """Fetch the wheel of the Windows runtime."""
    return _download(requirement, folder, _PYTHON)


def _download(requirement: str, folder: Path, python: str) -> Path:
    """Fetch a wheel by pip, and so from the index that pip is configured for."""
    platform = ["--platform", "win_amd64", "--python-version", python, "--only-binary=:all:"]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    run([*pip, *platform, "--dest", str(folder), requirement])
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise SetupError(f"pip fetched {len(wheels)} wheels for {requirement}; expected one")
    return wheels[0]


class Wheel(NamedTuple):
    """A wheel of the Python index, for Windows."""

    requirement: str
    sha256: str
    python: str = _PYTHON


def wheel(pinned: Wheel, folder: Path) -> Path:
    """Fetch a wheel. Raises SetupError where it is not the one that is meant."""
    file = _download(pinned.requirement, folder, pinned.python)
    if (found := hashlib.sha256(file.read_bytes()).hexdigest()) != pinned.sha256:
        raise SetupError(f"{file.name} has the sha256 {found}, not {pinned.sha256}")
    return file


def unpack_libraries(wheel: Path, folder: Path) -> None:
    """The DLLs of the runtime. Raises SetupError where one of the two that matter is missing."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("onnxruntime/capi/") and name.endswith(".dll"):
                (folder / name.rpartition("/")[2]).write_bytes(archive.read(name))
    missing = [name for name in ("onnxruntime.dll", "DirectML.dll") if not (folder / name).is_file()]
    if missing:
        raise SetupError(f"{wheel.name} has no {' and no '.join(missing)}")


def run(command: list[str], timeout_s: float = 900) -> str:
    """The standard output of a command. Raises SetupError with the end of what it said where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s)
    except FileNotFoundError as error:
        raise SetupError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{command[0]} took more than {timeout_s:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise SetupError(f"{' '.join(command)} failed ({done.returncode}): {' / '.join(said)}")
    return done.stdout
