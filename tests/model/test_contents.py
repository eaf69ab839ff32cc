"""A file that only stands in for another is called what it is."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import pytest

from embedmill.base.errors import ModelError
from embedmill.model.contents import stand_in
from tests.support.running import build
from tests.support.tiny_model import write_tiny_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 90868376\n"
WRONG = ("damaged", "fetch", "resume")


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("archive/data.pkl", b"weights")
    return data.getvalue()


STAND_INS = {
    "a Git LFS pointer": (POINTER, "Git LFS pointer in place of the file; run `git lfs pull`"),
    "an annex pointer": (b"/annex/objects/SHA256E-s90--4d7a.onnx\n", "a pointer"),
    "a web page": (b"\n<!DOCTYPE html><html><head><title>Sign in</title></head></html>", "a web page"),
    "an answer of a store": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
    "nothing": (b"", "it is empty"),
    "a failed download": (b"Entry not found", "it holds the words 'Entry not found' only"),
    "an error as JSON": (b'{"error":"Invalid credentials"}', "it holds the words"),
    "gzip": (gzip.compress(b"weights"), "compressed (gzip); unpack it"),
    "a pickle": (zipped(), "as PyTorch writes; such weights may run code and are never opened"),
}


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "modules.json"])
@pytest.mark.parametrize("kind", ["a Git LFS pointer", "a web page", "an answer of a store", "nothing", "gzip"])
def test_a_models_file_that_is_another_is_named_with_the_remedy(tmp_path: Path, name: str, kind: str) -> None:
    content, said = STAND_INS[kind]
    model = write_tiny_model(tmp_path / "model")
    (model / name).write_bytes(content)
    with pytest.raises(ModelError) as info:
        build(model, tmp_path / "bundle")
    assert str(model / name) in str(info.value)
    assert said in str(info.value)
    assert not any(word in str(info.value) for word in WRONG)


@pytest.mark.parametrize(("content", "said"), STAND_INS.values(), ids=STAND_INS)
@pytest.mark.parametrize("name", ["model.safetensors", "model.onnx", "model.onnx_data"])
def test_a_weight_file_that_is_another_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in str(stand_in(tmp_path / name))


@pytest.mark.parametrize("header", [640, 0x88, 0x8B1F, 0x3C68])
def test_a_safetensors_file_is_none_of_them_whatever_its_headers_length(tmp_path: Path, header: int) -> None:
    """A pickle may begin with the bytes 80 02, and so does a file whose header has 640 bytes."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(header.to_bytes(8, "little") + b"{" + b" " * header)
    assert stand_in(path) is None


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to("../blobs/4d7a")
    if not (tmp_path / "model.onnx").is_symlink():
        pytest.skip("Wine makes no links, though it says so")
    assert stand_in(tmp_path / "model.onnx") == "it is a link to a file that is not there"
