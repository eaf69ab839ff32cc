"""python -m hardware.windows [CHECK ...]: build a Windows Python under Wine, and check embedmill in it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hardware.directml.errors import SetupError
from hardware.directml.wine import DEFAULT_FOLDER
from hardware.windows.build import BASE_PYTHON, prepare

_TIMEOUT_S = 3 * 3600


def main() -> int:
    """Exit code 0 where all holds, 1 where something does not, 2 where the environment cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m hardware.windows", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="see checks.py; all where none is named")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the environment is kept")
    parser.add_argument("--mirror", help="a Debian mirror; by default the one that apt uses")
    options = parser.parse_args()
    try:
        machine = prepare(options.folder, mirror=options.mirror)
        return machine.run(BASE_PYTHON, "-m", "hardware.windows.checks", *options.checks, timeout_s=_TIMEOUT_S)
    except SetupError as error:
        print(f"windows: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
