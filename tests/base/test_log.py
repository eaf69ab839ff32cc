"""A log never stops a job, whatever became of its streams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.jobs import make_config, make_rows, write_jsonl

RUN = """
import logging, os, sys
import embedmill
from embedmill.base.configfile import load_config
handler = logging.StreamHandler(open(os.devnull, "w"))
case = sys.argv[1]
if case == "handler closed":
    logging.getLogger().addHandler(handler)
    handler.stream.close()
if case == "full":
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
if case in ("handler closed", "closed"):
    sys.stderr.close()
if case == "none":
    sys.stderr = None
logging.getLogger("embedmill").setLevel(logging.INFO)
logging.getLogger("embedmill").warning("a line that nobody reads")
embedmill.run(load_config(None, sys.argv[2:]))
os.write(1, b"done")
os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="/dev/full")
@pytest.mark.parametrize(
    "case",
    [
        "none",
        "full",
        *(pytest.param(case, marks=pytest.mark.hostile) for case in ("as it is", "closed", "handler closed")),
    ],
)
def test_a_job_called_from_python_ends_whatever_became_of_standard_error(
    tmp_path: Path, tiny_model: Path, case: str
) -> None:
    config = make_config(tiny_model, write_jsonl(tmp_path / "a.jsonl", make_rows(3)), tmp_path / "out")
    options = [f'input.paths=["{config.input.paths[0]}"]', f"output.path={config.output.path}", f"model={config.model}"]
    command = [sys.executable, "-c", RUN, case, *options, "engine.provider=cpu"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert done.stdout == b"done", done.stderr
    assert (tmp_path / "out" / "_manifest.json").is_file()
