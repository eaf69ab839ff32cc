"""The real nvidia-ml-py, over a library that is compiled here in place of the driver's."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.readings import GIB

COMPILER = shutil.which("cc")
PROGRAM = """
import json, sys
from embedmill.engine.machine.memory.nvml import NvmlProbe
found = []
for device in (0, "0000:01:00.0", "GPU-01020304-0506-0708-090a-0b0c0d0e0f10", 1, "0000:99:00.0"):
    probe = NvmlProbe(device)
    reading = probe.read()
    probe.close()
    found.append([reading.used_bytes, reading.free_bytes, reading.ceiling_bytes, reading.own_bytes, reading.reason])
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="compiles a library of Linux")
@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
def test_nvidia_ml_py_reads_the_drivers_library(tmp_path: Path) -> None:
    source = Path(__file__).with_name("nvidia.c")
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-o", library, source], check=True)
    (tmp_path / "libcuda.so.1").symlink_to(library)
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)
    known = [3 * GIB, 21 * GIB, 24 * GIB, GIB, ""]
    # The second look finds the GPU lost.
    lost = [None, None, None, None, "GPU is lost"]
    assert json.loads(done.stdout) == [
        known,
        lost,
        known,
        [None, None, None, None, "device 1: cuDeviceGet failed with 101"],
        [None, None, None, None, "device 0000:99:00.0: Not Found"],
    ]
