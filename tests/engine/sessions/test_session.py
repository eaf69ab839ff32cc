"""A session pads batches to the right, and whatever the runtime says becomes one sentence."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from msgspec import structs

from embedmill.base.errors import DeviceError, ModelError, OutOfMemory
from embedmill.base.records import Bucket
from embedmill.engine.catalogue.entry import DeviceChoice, GraphChoice, Provider
from embedmill.engine.sessions.options import SessionPlan, plan_session
from embedmill.engine.sessions.session import Session, pad
from embedmill.model.bundle import Flavour
from tests.support.fake_devices import device_of
from tests.support.fake_runtime import STRICT, Runtime, runtime
from tests.support.plans import batch_of, plan_of
from tests.support.running import FLAVOURS, TEXTS, TOLERANCE, build, graph_path, run
from tests.support.works import CPU, model, provider_of, tokens_of, with_graph, with_ort

__all__ = ["runtime"]


def open_session(graph: Path, provider: Provider = CPU, *, pad_id: int = 0) -> Session:
    return Session(plan_of(graph), provider, pad_id=pad_id)


def test_a_batch_is_padded_to_the_right() -> None:
    tokens = tokens_of([[11, 12, 13], [21], [31, 32]])
    ids, mask = pad(tokens, batch_of(2, 0, sequence=4), pad_id=9)
    assert ids.tolist() == [[31, 32, 9, 9], [11, 12, 13, 9]]
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]
    assert [ids.dtype.name, mask.dtype.name] == ["int64", "int64"]


def test_a_batch_runs_whatever_token_pads_it(tiny_model: Path, tmp_path: Path) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    session = open_session(bundle.folder / "fused.onnx", pad_id=7)
    found = session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))
    np.testing.assert_allclose(found, run(bundle, "fused"), atol=1e-6)


def test_a_token_that_the_model_does_not_know_is_a_device_error(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(build(tiny_model, tmp_path / "bundle").folder / "fused.onnx")
    with pytest.raises(
        DeviceError,
        match=r"cpu failed on a batch of 1 x 2 tokens: .*; a resume would fail alike: try another --provider or model",
    ) as info:
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


def test_what_the_runtime_says_in_many_lines_is_told_in_one(runtime: Runtime, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel\n  at node 7\n  in graph main")

    runtime.refuse = refuse
    with pytest.raises(DeviceError, match=r"any\.onnx: no such kernel$"):
        open_session(tmp_path / "any.onnx")


def test_a_provider_that_this_runtime_lacks_is_a_device_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"has no moon provider; install the build that has it"):
        open_session(tmp_path / "any.onnx", provider_of())


def assert_one_line(error: DeviceError) -> None:
    assert "\n" not in str(error)


def test_the_empty_rows_of_a_fixed_shape_have_one_token() -> None:
    ids, mask = pad(tokens_of([[11, 12], [21]]), batch_of(1, 0, sequence=3, size=4), pad_id=9)
    assert ids.tolist() == [[21, 9, 9], [11, 12, 9], [9, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_fixed_shape_gives_the_vectors_of_any_shape(tiny_model: Path, tmp_path: Path, flavour: Flavour) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    plan = plan_of(graph_path(bundle, flavour), free={"batch": 8, "sequence": 16})
    found = Session(plan, CPU, pad_id=0).run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=16, size=8))
    np.testing.assert_allclose(found, run(bundle, flavour), atol=TOLERANCE[flavour])


def test_a_fixed_shape_runs_no_other(tiny_model: Path, tmp_path: Path) -> None:
    plan = plan_of(build(tiny_model, tmp_path / "bundle").folder / "unfused.onnx", free={"batch": 8, "sequence": 16})
    with pytest.raises(DeviceError, match="batch of 3 x 12 tokens"):
        Session(plan, CPU, pad_id=0).run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))


def test_bound_inputs_and_outputs_give_the_same_vectors(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    expected = run(bundle, "fused")
    session = Session(plan_of(bundle.folder / "fused.onnx"), with_ort(CPU, bound=True), pad_id=0)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *_: pytest.fail("it was not bound"))
    for _ in range(2):
        found = session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12, size=5))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_bound_batch_that_fails_is_a_device_error(tiny_model: Path, tmp_path: Path) -> None:
    graph = build(tiny_model, tmp_path / "bundle").folder / "fused.onnx"
    session = Session(plan_of(graph), with_ort(CPU, bound=True), pad_id=0)
    with pytest.raises(DeviceError, match="cpu failed on a batch of 1 x 2 tokens"):
        session.run(tokens_of([[2, 10_000]]), batch_of(0, sequence=2))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("bfc_arena.cc:360 Failed to allocate memory for requested buffer of size 37748736"), OutOfMemory),
        (RuntimeError("Exception: std::bad_alloc"), OutOfMemory),
        (MemoryError(), OutOfMemory),
        (RuntimeError("Gather index out of bounds"), DeviceError),
    ],
    ids=str,
)
def test_want_of_memory_is_told_from_other_failures(
    runtime: Runtime, tmp_path: Path, error: Exception, kind: type[DeviceError]
) -> None:
    session = open_session(tmp_path / "any.onnx", provider_of())

    def fail() -> None:
        raise error

    runtime.before_run = fail
    with pytest.raises(DeviceError) as info:
        session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))
    assert type(info.value) is kind


def test_want_of_memory_for_a_session_is_told_too(runtime: Runtime, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Exception during initialization: std::bad_alloc")

    runtime.refuse = refuse
    with pytest.raises(OutOfMemory, match="the device is out of memory"):
        open_session(tmp_path / "any.onnx")


def test_a_closed_session_gives_back_what_the_runtime_holds(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(build(tiny_model, tmp_path / "bundle").folder / "fused.onnx")
    session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))
    held = weakref.ref(session._session)
    session.close()
    assert held() is None


def test_who_opened_a_session_is_told_each_batch_and_its_seconds(tiny_model: Path, tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    graph = build(tiny_model, tmp_path / "bundle").folder / "fused.onnx"
    session = Session(plan_of(graph), CPU, pad_id=0, on_run=lambda batch, took: told.append((batch.size, took)))
    session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))
    assert [(size, took) for size, took in told] == [(3, session.busy_s)]


def test_the_seconds_of_all_batches_are_counted(tiny_model: Path, tmp_path: Path) -> None:
    session = open_session(build(tiny_model, tmp_path / "bundle").folder / "fused.onnx")
    assert session.busy_s == 0
    session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))
    once = session.busy_s
    session.run(tokens_of(TEXTS), batch_of(0, 1, 2, sequence=12))
    assert 0 < once < session.busy_s


class TestPlan:
    """What the catalogue makes of a model, a shape and a device."""

    BASE = provider_of(
        options={"speed": "high"},
        session={"tide": "low"},
        emulated={"chip": "60"},
        memory_limit="limit",
        memory_pattern=False,
    )

    def plan(self, provider: Provider = BASE, **options: Any) -> SessionPlan:
        return plan_session(model(), provider, "fp32", threads=3, **options)

    def test_it_holds_what_the_entry_says(self) -> None:
        found = self.plan()
        assert (Path(found.graph), found.threads, found.memory_pattern) == (Path("nowhere/fused.onnx"), 3, False)
        assert found.options == {"speed": "high"}
        assert found.session == {"tide": "low", STRICT: "1"}
        assert (found.strict, found.free) == (True, {})

    def test_a_bucket_fixes_batch_and_sequence(self) -> None:
        assert self.plan(bucket=Bucket(rows=4, sequence=32)).free == {"batch": 4, "sequence": 32}

    def test_an_emulated_device_has_options_of_its_own(self) -> None:
        assert self.plan(device=device_of()).options == {"speed": "high"}
        assert self.plan(device=device_of(emulated=True)).options == {"speed": "high", "chip": "60"}

    def test_a_memory_limit_goes_where_the_provider_takes_it(self) -> None:
        assert self.plan(memory_bytes=5000).options == {"speed": "high", "limit": "5000"}
        assert self.plan(provider_of(), memory_bytes=5000).options == {}

    def test_a_precision_may_need_options(self) -> None:
        choice = GraphChoice(graph="fused", floor=0.9, options={"speed": "exact"})
        assert self.plan(structs.replace(self.BASE, precisions={"fp32": choice})).options == {"speed": "exact"}

    def test_a_device_is_named_by_its_number_or_left_to_the_default(self) -> None:
        naming = DeviceChoice(option="device_id", metadata="Adapter", default={"preference": "speed"})
        provider = provider_of(device=naming)
        assert self.plan(provider, device=device_of(Adapter="3")).options == {"device_id": "3"}
        assert self.plan(provider, device=device_of(2)).options == {"device_id": "2"}
        assert self.plan(provider).options == {"preference": "speed"}

    @pytest.mark.parametrize(
        ("provider", "strict"),
        [
            (provider_of(), True),
            (provider_of(strict=False), False),
            (provider_of(on_cpu=frozenset({"Shape"})), False),
            (CPU, False),
        ],
        ids=["strict", "lax", "some on the cpu", "cpu"],
    )
    def test_the_runtime_is_strict_where_no_node_may_stray(self, provider: Provider, strict: bool) -> None:
        found = self.plan(provider)
        assert (found.strict, STRICT in found.session) == (strict, strict)

    @pytest.mark.parametrize(("limit", "opset"), [(None, 25), (20, 20), (20, 17)])
    def test_operators_that_the_provider_knows_are_taken(self, limit: int | None, opset: int) -> None:
        assert plan_session(model(opset=opset), provider_of(opset=limit), "fp32", threads=1).graph

    def test_operators_newer_than_the_provider_are_a_model_error(self) -> None:
        with pytest.raises(ModelError) as refused:
            plan_session(model(opset=21), provider_of(opset=20), "fp32", threads=1)
        assert str(refused.value) == (
            "fake uses operators of opset 21, and moon knows them up to 20;"
            " export it again with opset 20 or lower, or choose another --provider"
        )

    def test_a_graph_that_the_model_lacks_is_a_model_error(self) -> None:
        provider = with_graph(provider_of(), "unfused-fp16", precision="fp16")
        with pytest.raises(ModelError) as refused:
            plan_session(model(graphs=["unfused", "fused"]), provider, "fp16", threads=1)
        assert str(refused.value) == (
            "fake has no unfused-fp16 graph, which moon needs for fp16; it has: fused, unfused;"
            " choose another with engine.precision (--precision)"
        )
