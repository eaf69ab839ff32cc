"""Tuning under a limit that the kernel enforces: no trial passes the ceiling, and none runs out of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from data.__main__ import documents
from embedmill.model.bundle import Bundle

pytestmark = [pytest.mark.crash, pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts there")]

PROGRAM = """
import resource, sys
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
from embedmill.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "a.jsonl"
    rows = list(documents(Path(sysconfig.get_path("stdlib"))))[::20]
    path.write_text("".join(json.dumps({"id": row["id"], "text": row["text"]}) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("limit_mib", [800, 1000, 1500])
def test_no_trial_passes_the_ceiling_under_a_hard_limit(
    corpus: Path, bundle: Bundle, tmp_path: Path, limit_mib: int
) -> None:
    words = [
        "tune",
        "--input",
        str(corpus),
        "--model",
        str(bundle.folder),
        "--provider",
        "cpu",
        "--time",
        "8",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(limit_mib << 20), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "EMBEDMILL_HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    peaks = [trial["peak_bytes"] for trial in found["trials"]]
    assert [trial["failure"] for trial in found["trials"] if trial["failure"]] == []
    assert len(peaks) > 2, "a busy machine has time for few"
    assert max(peaks) <= found["ceiling_bytes"] < limit_mib << 20
    assert found["peak_bytes"] <= found["ceiling_bytes"]
    print(f"limit {limit_mib} MiB, ceiling {found['ceiling_bytes'] >> 20}: {len(peaks)} trials, {max(peaks) >> 20} MiB")
