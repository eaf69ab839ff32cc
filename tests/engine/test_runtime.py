"""A runtime that cannot be loaded is a sentence, and the rest goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import write_jsonl

# What Windows' loader says without the runtime libraries of Microsoft's compiler, and packages that were half removed.
BROKEN = {
    "no libraries": "raise ImportError('DLL load failed while importing onnxruntime_pybind11_state: not found')",
    "no content": "",
    "half removed": "from onnxruntime.capi import _pybind_state",
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """An environment in which ONNX Runtime cannot be loaded."""
    package = tmp_path / "broken" / "onnxruntime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(BROKEN[request.param], "utf-8")
    paths = [str(package.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def test_a_run_ends_with_a_sentence_and_a_remedy(broken: dict[str, str], tiny_model: Path, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"id": "1", "text": "a"}])
    command = [sys.executable, "-m", "embedmill", "run", "--input", str(path), "--output", str(tmp_path / "out")]
    done = subprocess.run([*command, "--model", str(tiny_model)], env=broken, capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    [sentence] = [line for line in done.stderr.splitlines() if "cannot be loaded" in line]
    assert sentence.startswith("NoRuntime: ONNX Runtime cannot be loaded (")
    expected = (
        "Visual C++" if sys.platform == "win32" and "DLL" in sentence else "--force-reinstall --no-deps onnxruntime"
    )
    assert expected in sentence
    assert "Traceback" not in done.stderr


def test_the_doctor_goes_on_and_says_so_of_each_provider(broken: dict[str, str]) -> None:
    command = [sys.executable, "-m", "embedmill", "doctor", "--json"]
    done = subprocess.run(command, env=broken, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    states = {finding["provider"]: (finding["state"], finding["words"]) for finding in found["findings"]}
    assert states["cpu"][0] == "fails"
    assert "ONNX Runtime cannot be loaded" in states["cpu"][1]
    assert found["machine"]["python"]
