"""Runs a command in the root, in namespaces of its own: what it mounts and starts ends with it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hardware.directml.errors import SetupError

# proc, the scratch folders and the binds are mounted where nobody else sees them, then the root is entered.
_ENTER = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/jobs"
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$root$2"
    shift 3
done
shift
exec chroot "$root" "$@"
"""

SOURCES = Path(__file__).parent
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "WINEPREFIX": "/opt/prefix",
    "WINEARCH": "win64",
    # Neither .NET nor a browser, no menu entries; a debugger would hold what crashed for ever.
    "WINEDLLOVERRIDES": "mscoree,mshtml=;winemenubuilder.exe,winedbg.exe=d",
    "WINEDEBUG": "-all",
    "VKD3D_DEBUG": "err",
    # The software renderer and no other, whatever the machine has.
    "VK_DRIVER_FILES": "/usr/share/vulkan/icd.d/lvp_icd.json",
}


def namespaces(*, network: bool) -> list[str]:
    """The beginning of a command line: what follows has mounts and processes of its own, which end with it.

    It is killed, too, when the process that started it dies, however that dies.
    """
    kinds = ["--mount", "--pid", "--ipc", "--uts", *([] if network else ["--net"])]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *kinds, "--fork", "--kill-child"]


class Bind(NamedTuple):
    """Folder of this machine that appears in the root."""

    source: Path
    place: str
    mode: str = "ro"


def enter(
    root: Path,
    script: str,
    *arguments: str,
    sources: Path = SOURCES,
    binds: Sequence[Bind] = (),
    network: bool = False,
    environment: Mapping[str, str] | None = None,
    shown: bool = False,
    timeout_s: float,
) -> subprocess.CompletedProcess[str]:
    """Run `inside/<script>` of `sources`, which appear as /src; what it says is returned, or `shown` as it comes.

    Needs root. Whatever is left of it when the script ends, or when its time is over, is killed.
    """
    (root / "jobs").mkdir(exist_ok=True)
    mounts = [word for bind in (Bind(sources, "/src"), *binds) for word in (str(bind.source), bind.place, bind.mode)]
    inside = ["/bin/sh", f"/src/inside/{script}", *arguments]
    command = [*namespaces(network=network), "/bin/sh", "-c", _ENTER, "enter", str(root.resolve())]
    try:
        return subprocess.run(
            [*command, *mounts, "--", *inside],
            env={**_ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=None if shown else subprocess.PIPE,
            stderr=None if shown else subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{script} took more than {timeout_s:.0f} s and was stopped") from error
