"""The worker's distribution has what it imports, and no more: in a fresh environment it computes the same vectors."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.records import Work
from embedmill.batch.pack import pack
from embedmill.engine.engine import Engine
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.client import HostClient
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.spec import EngineSpec
from embedmill.model.bundle import open_bundle
from tests.support.jobs import tiny_bundle
from tests.support.works import CPU, PACKING, target_of, tokens_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "worker" / "pyproject.toml").read_text())["project"]
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# One package of the runtime for each machine; the others come with it, or with msgspec.
RUNTIMES = {"onnxruntime", "onnxruntime-directml", "onnxruntime-windowsml"}


def names_of(dependencies: list[str]) -> set[str]:
    return {re.split(r"[<>=;\[ ]", line)[0] for line in dependencies}


def test_the_worker_needs_what_its_process_imports() -> None:
    code = (
        "import json, sys, embedmill.engine.runners.host\n"
        "files = {name: getattr(module, '__file__', None) or '' for name, module in list(sys.modules.items())}\n"
        "found = {name.partition('.')[0] for name, file in files.items() if 'site-packages' in file}\n"
        "ours = {name for name in files if name.startswith('embedmill.')}\n"
        "print(json.dumps([sorted(found), sorted(ours)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found, ours = json.loads(done.stdout)
    assert {name for name in found if not name.startswith("_")} - {"typing_extensions"} == (
        names_of(PROJECT["dependencies"]) - RUNTIMES | {"onnxruntime"}
    )
    assert {name.split(".")[1] for name in ours} == {"base", "engine"}


def test_the_worker_takes_the_versions_of_the_whole() -> None:
    assert set(PROJECT["dependencies"]) <= set(WHOLE["dependencies"])
    assert (PROJECT["version"], PROJECT["requires-python"]) == (WHOLE["version"], WHOLE["requires-python"])


@pytest.mark.hostile
def test_the_worker_alone_computes_the_same_vectors(
    tmp_path: Path, tiny_model: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "worker"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def in_it(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([python, *words], capture_output=True, text=True)

    constraints = ROOT / "constraints.txt"
    installed = in_it("-m", "pip", "install", "--quiet", "--constraint", constraints, ROOT / "worker")
    assert installed.returncode == 0, installed.stderr
    listed = in_it("-c", "import sys; print(*sys.path[1:], sep='\\n')")
    lacking = in_it("-c", "import pyarrow")
    assert "No module named 'pyarrow'" in lacking.stderr

    model = open_bundle(tiny_bundle(tiny_model)).model(TextTable())
    spec = EngineSpec.decide(model, target_of(CPU), EngineTable(streams=1, threads=1), PACKING)
    tokens = tokens_of([[2, 7, 9, 30, 3], [2, 3], [2, 12, 80, 81, 6, 3]])
    work = Work(tokens=tokens, batches=pack(tokens.lengths, PACKING))

    def vectors(host: HostClient | None = None) -> np.ndarray:
        with Engine(ProcessRunner(spec, RunnerOptions(watched=False), print, host=host)) as engine:
            [(_, found)] = engine.embed([(0, work)])
            return found

    expected = vectors()
    with monkeypatch.context() as there:
        there.setattr(sys, "executable", str(python))
        there.setattr(sys, "path", listed.stdout.split("\n"))
        host = HostClient()
    with host:
        np.testing.assert_array_equal(vectors(host), expected)
