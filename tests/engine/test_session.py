"""A session pads batches to the right, and whatever the runtime says becomes one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.engine.catalogue import Provider
from pipeline.engine.session import Session, pad
from pipeline.errors import DeviceError
from pipeline.records import Batch
from tests.engine.works import CPU, tokens_of
from tests.model.running import TEXTS, build, run


def open_session(graph: Path, provider: Provider = CPU) -> Session:
    return Session(graph, provider, threads=1, optimise=False, pad_id=0)


def batch_of(*rows: int, sequence: int) -> Batch:
    return Batch(rows=np.array(rows, np.int64), sequence=sequence)


def test_a_batch_is_padded_to_the_right() -> None:
    tokens = tokens_of([[11, 12, 13], [21], [31, 32]])
    ids, mask = pad(tokens, batch_of(2, 0, sequence=4), pad_id=9)
    assert ids.tolist() == [[31, 32, 9, 9], [11, 12, 13, 9]]
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert [ids.dtype.name, mask.dtype.name] == ["int64", "int64"]


def test_a_batch_runs_whatever_token_pads_it(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    session = Session(bundle.folder / "fused.onnx", CPU, threads=1, optimise=False, pad_id=7)
    found = session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))
    np.testing.assert_allclose(found, run(bundle, "fused"), atol=1e-6)


def test_a_token_that_the_model_does_not_know_is_a_device_error(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(build(tiny_model, tmp_path / "bundle").folder / "fused.onnx")
    with pytest.raises(DeviceError, match=r"cpu failed on a batch of 1 x 2 tokens: .*; the run can be resumed") as info:
        session.run(tokens_of([[2, 10_000]]), batch_of(0, sequence=2))
    assert_one_line(info.value)


def test_more_tokens_than_positions_are_a_device_error(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(build(tiny_model, tmp_path / "bundle").folder / "unfused.onnx")
    with pytest.raises(DeviceError, match=r"cpu failed on a batch of 1 x 100 tokens") as info:
        session.run(tokens_of([[2] * 100]), batch_of(0, sequence=100))
    assert_one_line(info.value)


@pytest.mark.parametrize("content", [b"", b"no ONNX at all", b"\x08\x07\x12\x04half"], ids=repr)
def test_a_broken_graph_is_a_device_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(DeviceError, match=r"cpu cannot run .*broken\.onnx") as info:
        open_session(tmp_path / "broken.onnx")
    assert_one_line(info.value)


def test_a_missing_graph_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"cpu cannot run .*missing\.onnx") as info:
        open_session(tmp_path / "missing.onnx")
    assert_one_line(info.value)


def test_a_graph_without_its_weights_is_a_device_error(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    (bundle.folder / "weights.bin").unlink()
    with pytest.raises(DeviceError, match=r"cpu cannot run .*fused\.onnx") as info:
        open_session(bundle.folder / "fused.onnx")
    assert_one_line(info.value)


def test_what_the_runtime_says_in_many_lines_is_told_in_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel\n  at node 7\n  in graph main")

    monkeypatch.setattr("pipeline.engine.session.ort.InferenceSession", refuse)
    with pytest.raises(DeviceError, match=r"any\.onnx: no such kernel$"):
        open_session(tmp_path / "any.onnx")


def test_a_provider_that_this_runtime_lacks_is_a_device_error(tmp_path: Path) -> None:
    provider = Provider(name="moon", ort_name="MoonExecutionProvider", graph="fused", streams="one")
    with pytest.raises(DeviceError, match=r"has no moon provider; install the build that has it"):
        open_session(tmp_path / "any.onnx", provider)


def assert_one_line(error: DeviceError) -> None:
    assert "\n" not in str(error)
