"""Installs the pip beside this file into the environment that runs it."""

import runpy
import sys
from pathlib import Path

[wheel] = Path(__file__).parent.glob("pip-*.whl")
sys.path.insert(0, str(wheel))
sys.argv[1:] = ["install", "--quiet", "--no-index", "--no-warn-script-location", str(wheel)]
runpy.run_module("pip", run_name="__main__", alter_sys=True)
