"""Steps that put a Windows Python into the root of `hardware.directml`, after that one's own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hardware.directml import build, fetch, sandbox
from hardware.directml.sandbox import Bind
from hardware.directml.wine import alone
from hardware.windows.layout import SOURCES, lay_out

# Carries python313.dll 3.13.11 and its extension modules, as python.org builds and signs them.
WHEEL = fetch.Wheel("panda3d==1.10.16", "0e505261bb58d8402d0099c291f1a3459acfdd38f3e7d666e72aa2e1ea5dc46f", "3.13")
PIP = fetch.Wheel("pip==26.3", "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13")
_WINE = "usr/lib/x86_64-linux-gnu/wine/x86_64-windows"
_LIBRARY = "usr/lib/python3.13"
PROJECT = "embedmill"
BASE_PYTHON = r"C:\Python\python.exe"
# Without /sys Wine reports no processors; pip in Wine trusts what this machine trusts.
_BINDS = (Bind(sandbox.SOURCES, "/wine"), Bind(Path("/sys"), "/sys"), Bind(Path("/etc/ssl"), "/etc/ssl"))
_ENVIRONMENT = {"PIP_CERT": r"Z:\etc\ssl\certs\ca-certificates.crt", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


class Machine:
    """A Windows Python in an environment that is ready."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.lock = folder

    def run(self, *words: str, timeout_s: float) -> int:
        """Run a command in the project's folder; its exit code. Raises SetupError where its time is over."""
        with alone(self.lock):
            done = sandbox.enter(
                self.root, "run.sh", PROJECT, *words,
                sources=SOURCES, binds=_BINDS, network=True, environment=_ENVIRONMENT,
                shown=True, timeout_s=timeout_s,
            )  # fmt: skip
        return done.returncode


def prepare(folder: Path, *, mirror: str | None = None) -> Machine:
    """The environment in `folder`, made or completed where it is not, and in it this checkout as C:\\embedmill.

    Needs what `hardware.directml` needs, and 1.2 GB more. Raises SetupError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    root = folder / "root"
    with alone(folder):
        pins = f"{WHEEL.sha256}\n{PIP.sha256}"
        own = build.text_of(SOURCES, "inside/python.sh", "source/*", "layout.py", "exports.py")
        steps = build.steps(mirror or fetch.mirror(), fetch.RUNTIME)
        build.perform(root, [*steps, build.Step(name="python", inputs=f"{pins}\n{own}", act=_python)])
        _copy_project(root / "opt/prefix/drive_c" / PROJECT)
    return Machine(folder)


def _python(root: Path) -> None:
    wine = root / _WINE
    # Where an earlier build took its place, Wine's own has another name.
    runtime = next(path for path in (wine / "ucrtwine.dll", wine / "ucrtbase.dll") if path.is_file())
    with tempfile.TemporaryDirectory(prefix="windows-") as scratch:
        wheel, pip = (fetch.wheel(found, Path(scratch) / found.requirement) for found in (WHEEL, PIP))
        lay_out(root / "opt/windows", wheel=wheel, pip=pip, library=root / _LIBRARY, runtime=runtime)
    build.run_script(root, "python.sh", sources=SOURCES)


def _copy_project(place: Path) -> None:
    """Make `place` a copy of this checkout; what was installed or made there stays."""
    checkout = SOURCES.parent.parent
    command = ["git", "-C", str(checkout), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = {name for name in fetch.run(command).split("\0") if (checkout / name).is_file()}
    listed = place / ".copied"
    before = set(listed.read_text("utf-8").split("\0")) if listed.is_file() else set()
    for name in before - names:
        (place / name).unlink(missing_ok=True)
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(checkout / name, place / name)
    listed.write_text("\0".join(sorted(names)), "utf-8")
