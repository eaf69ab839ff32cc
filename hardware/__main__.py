"""`python -m hardware [PROVIDER...]`: builds an environment for each and runs the parity suite in it."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

from embedmill.engine.availability import distribution_for
from embedmill.engine.catalogue import find_provider
from embedmill.engine.machine.machine import this_machine
from hardware import mesa

ROOT = Path(__file__).resolve().parent.parent
PROVIDERS = ("openvino", "webgpu", "qnn")


def main() -> int:
    """Prove each provider in turn; the number of those that failed."""
    parser = argparse.ArgumentParser(prog="hardware", description=__doc__)
    parser.add_argument("providers", nargs="*", metavar="PROVIDER", help=f"of {', '.join(PROVIDERS)}; default: all")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/hardware", help="where environments are built")
    parser.add_argument("--texts", type=int, default=200, help="how many texts are compared")
    parser.add_argument("--longest", type=int, help="leave out shapes of more tokens: they take minutes")
    options = parser.parse_args()
    failed = 0
    for name in options.providers or PROVIDERS:
        if name not in PROVIDERS:
            parser.error(f"there is no proof for {name!r}; choose of {', '.join(PROVIDERS)}")
        python = environment(options.folder.resolve() / name, name)
        variables = os.environ | (mesa.prepare(options.folder.resolve() / "mesa") if name == "webgpu" else {})
        command = [str(python), "-m", "hardware.parity", name, "--texts", str(options.texts)]
        command += ["--longest", str(options.longest)] if options.longest else []
        failed += subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode != 0
    return failed


def environment(folder: Path, name: str) -> Path:
    """The Python of an environment where the provider was installed by the line that the doctor gives."""
    python = folder / "bin/python"
    if not (folder / "complete").is_file():
        print(f"building {folder}", flush=True)
        pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([*pip, "install", *constraints, "--editable", str(ROOT)], check=True)
        subprocess.run([*pip, *_arguments(name), *constraints], check=True)
        (folder / "complete").touch()
    return python


def _arguments(name: str) -> list[str]:
    """Of pip, as the catalogue has them for this machine."""
    machine = this_machine()
    home = distribution_for(find_provider(name), machine)
    if home is None:
        raise SystemExit(f"{name} does not exist for {machine.system} on {machine.architecture}")
    return shlex.split(home.install)


if __name__ == "__main__":
    sys.exit(main())
