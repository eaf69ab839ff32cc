"""Builds the environment, step by step; a step that is done and unchanged is not done again."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct

from hardware.directml import elf, fetch, sandbox
from hardware.directml.errors import SetupError
from hardware.directml.sandbox import SOURCES

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_TOOLS = ("debootstrap", "unshare", "setpriv", "chroot", "dpkg-deb", "apt-get")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Step(Struct, frozen=True, kw_only=True):
    """`inputs` are what a change of makes it, and every later step, run again."""

    name: str
    inputs: str
    act: Callable[[Path], None]


def perform(root: Path, steps: Iterable[Step]) -> None:
    """Make `root` what it must be. Raises SetupError where a step fails; the next call goes on from there."""
    _check_machine()
    key = ""
    for step in steps:
        key = hashlib.sha256(f"{key}\n{step.name}\n{step.inputs}".encode()).hexdigest()
        stamp = root / "stamps" / step.name
        if stamp.is_file() and stamp.read_text("ascii") == key:
            continue
        print(f"wine: {step.name}", file=sys.stderr, flush=True)
        stamp.unlink(missing_ok=True)
        step.act(root)
        stamp.parent.mkdir(exist_ok=True)
        stamp.write_text(key, "ascii")


def steps(mirror: str, requirement: str) -> list[Step]:
    """The dear ones first: what is edited most comes last."""
    pins = "\n".join(package.sha256 for package in fetch.VKD3D)
    return [
        # The mirror is no input: the same suite is the same from any.
        Step(name="root", inputs=fetch.SUITE, act=lambda root: _bootstrap(root, mirror)),
        Step(name="packages", inputs=_text("inside/packages.sh"), act=_packages),
        Step(name="vkd3d", inputs=pins, act=lambda root: _vkd3d(root, mirror)),
        Step(name="bridge", inputs=_text("inside/bridge.sh", "bridge/*"), act=_script("bridge.sh")),
        Step(name="prefix", inputs=_text("inside/prefix.sh", "inside/display.sh"), act=_script("prefix.sh")),
        Step(name="runtime", inputs=requirement, act=lambda root: _runtime(root, requirement)),
        Step(name="program", inputs=_text("inside/program.sh", "session.c"), act=_script("program.sh")),
    ]


def _check_machine() -> None:
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise SetupError("this needs Linux on x86-64")
    if os.geteuid() != 0:
        raise SetupError("this needs root: it makes a root file system and enters it with its own mounts")
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        raise SetupError(f"not installed: {', '.join(missing)} (apt-get install debootstrap util-linux)")


def _bootstrap(root: Path, mirror: str) -> None:
    _remove(root)
    options = ["--variant=minbase", "--include=ca-certificates", f"--keyring={_KEYRING}"]
    bootstrap = ["debootstrap", *options, fetch.SUITE, str(root.resolve()), mirror]
    # It mounts the new root's /proc: in namespaces of its own that cannot outlive it.
    fetch.run([*sandbox.namespaces(network=True), *bootstrap])
    excluded = "\n".join(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale"))
    (root / "etc/dpkg/dpkg.cfg.d/lean").write_text(f"{excluded}\n", "utf-8")
    (root / "etc/apt/apt.conf.d/90lean").write_text('Acquire::Languages "none";\n', "utf-8")
    # A proxy, where this machine's apt has one.
    proxies = [line for line in fetch.run(["apt-config", "dump"]).splitlines() if "::Proxy" in line]
    (root / "etc/apt/apt.conf.d/91proxy").write_text("\n".join([*proxies, ""]), "utf-8")


def _remove(root: Path) -> None:
    """Delete what an earlier build left, if nothing of the machine's own is mounted in it."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines()]
    inside = [point for point in mounted if point.startswith(f"{root.resolve()}/")]
    if inside:
        raise SetupError(f"{', '.join(inside)} is mounted; unmount it before {root} is made anew")
    if root.exists():
        shutil.rmtree(root)


def _packages(root: Path) -> None:
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc") / name, root / "etc" / name)
    _script("packages.sh", network=True)(root)


def _vkd3d(root: Path, mirror: str) -> None:
    local = root / "usr/local"
    with tempfile.TemporaryDirectory(prefix="directml-") as scratch:
        folder = Path(scratch)
        for package in fetch.VKD3D:
            fetch.run(["dpkg-deb", "--extract", str(fetch.debian(package, mirror, folder)), str(folder / "files")])
        libraries = folder / "files" / _LIBRARIES
        elf.retarget(libraries / "libvkd3d-shader.so.1", "libm.so.6", "GLIBC_2.43", "GLIBC_2.2.5")
        for name in ("libvkd3d.so.1", "libvkd3d-shader.so.1"):
            shutil.copyfile(libraries / name, local / "lib" / name)
        shutil.copytree(folder / "files/usr/include/vkd3d", local / "include/vkd3d", dirs_exist_ok=True)


def _runtime(root: Path, requirement: str) -> None:
    folder = root / "opt/runtime"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="directml-") as scratch:
        fetch.unpack_libraries(fetch.runtime(requirement, Path(scratch)), folder)


def _script(name: str, *, network: bool = False) -> Callable[[Path], None]:
    def act(root: Path) -> None:
        run_script(root, name, network=network)

    return act


def run_script(root: Path, name: str, *arguments: str, timeout_s: float = 1200, **options: Any) -> None:
    """Run a script in the root; `options` are those of `enter`. Raises SetupError with its last words."""
    done = sandbox.enter(root, name, *arguments, timeout_s=timeout_s, **options)
    if done.returncode:
        said = (done.stderr or done.stdout or "").strip().splitlines()[-5:]
        raise SetupError(f"{name} failed ({done.returncode}): {' / '.join(said)}")


def text_of(sources: Path, *patterns: str) -> str:
    """Names and contents of sources, by which a change of them is seen."""
    files = sorted(file for pattern in patterns for file in sources.glob(pattern) if file.is_file())
    return "\n".join(f"{file.name}\n{file.read_text('utf-8')}" for file in files)


def _text(*patterns: str) -> str:
    return text_of(SOURCES, *patterns)
