"""python -m hardware.directml [JOB ...]: prepare the environment, then run the session plans in job folders."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from hardware.directml import fetch
from hardware.directml.errors import SetupError
from hardware.directml.wine import DEFAULT_FOLDER, prepare


def main() -> int:
    """Exit code 0 where every job has its vectors, 1 where one has not, 2 where the environment cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m hardware.directml", description=__doc__)
    parser.add_argument("jobs", nargs="*", type=Path, metavar="JOB", help="a folder with plan.txt; see README.md")
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the environment is kept")
    parser.add_argument("--mirror", help="a Debian mirror; by default the one that apt uses")
    parser.add_argument("--runtime", default=fetch.RUNTIME, help="the wheel whose DLLs are run (default: %(default)s)")
    options = parser.parse_args()
    try:
        wine = prepare(options.folder, mirror=options.mirror, requirement=options.runtime)
        results = wine.run_all(options.jobs) if options.jobs else []
    except SetupError as error:
        print(f"directml: {error}", file=sys.stderr)
        return 2
    for job, facts in zip(options.jobs, results, strict=True):
        print(json.dumps({"job": str(job)} | facts))
    return int(any("error" in facts for facts in results))


if __name__ == "__main__":
    sys.exit(main())
