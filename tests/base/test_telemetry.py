"""Libraries that report to their makers do not, unless the config allows it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import make_config, make_rows, words_of, write_jsonl

SETTLED = """
import json, os, sys
import embedmill
from embedmill.base import telemetry
from embedmill.base.process.child import command_of, run_command
names = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY")
before = [os.environ.get(name) for name in names]
telemetry.settle(sys.argv[1] == "allow")
after = [os.environ.get(name) for name in names]
print(json.dumps([before, after, telemetry.allowed(), run_command(command_of("tests.base.telling")).lines[0]]))
"""
REPORTING = "import onnxruntime, onnxruntime.capi.onnxruntime_pybind11_state as state; state.get_all_providers()"


def clean() -> dict[str, str]:
    """The environment, without the variables of build servers, by which ONNX Runtime is silent."""
    kept = ("PATH", "LANG", "SYSTEMROOT", "PYTHONPATH", "EMBEDMILL_HOME")
    return {name: value for name, value in os.environ.items() if name in kept}


@pytest.mark.parametrize(
    ("config", "environment", "runtime"),
    [
        ("forbid", {"ORT_DISABLE_TELEMETRY": "0"}, "1"),
        ("allow", {}, None),
        ("allow", {"ORT_DISABLE_TELEMETRY": "0"}, "0"),
        ("allow", {"ORT_DISABLE_TELEMETRY": "True"}, "1"),
        ("allow", {"DO_NOT_TRACK": "1"}, "1"),
    ],
)
def test_config_allows_what_the_environment_does_not_forbid(
    config: str, environment: dict[str, str], runtime: str | None
) -> None:
    """In this process and in its children; before anything is settled, all is off."""
    command = [sys.executable, "-c", SETTLED, config]
    done = subprocess.run(command, env=clean() | environment, capture_output=True, text=True, check=True)
    allowed = runtime in (None, "0")
    assert json.loads(done.stdout) == [["1", "1"], [runtime, "1"], allowed, f"{runtime} 1 {allowed}"]


def left_by(command: list[str], folder: Path) -> list[str]:
    """What a process leaves in a fresh home and cache folder."""
    places = {"HOME": "home", "XDG_CACHE_HOME": "cache", "LOCALAPPDATA": "cache"}
    homes = {name: str(folder / place) for name, place in places.items()}
    subprocess.run(command, env=clean() | homes, capture_output=True, check=True)
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The files that this ONNX Runtime leaves when nothing forbids it."""
    left = left_by([sys.executable, "-c", REPORTING], tmp_path_factory.mktemp("reporting"))
    if not left:
        pytest.skip("this ONNX Runtime leaves no file of its reports here")
    return left


def test_a_run_leaves_nothing_of_reports(tmp_path: Path, tiny_model: Path, reports: list[str]) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(3))
    config = make_config(tiny_model, source, tmp_path / "out")
    words = [sys.executable, "-m", "embedmill", *words_of(config)]
    assert left_by(words, tmp_path / "fresh") == []
    resumed = [*words, "--set", f"output.path={tmp_path / 'other'}", "--set", "engine.telemetry=true"]
    assert set(reports) <= set(left_by(resumed, tmp_path / "allowed"))
