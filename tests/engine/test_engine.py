"""The engine gives vectors back in the order of the texts, counts what it does, and ends when it should."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import DeviceError
from embedmill.base.records import Batch, FloatArray, Tokens, Work
from embedmill.engine.engine import Engine
from embedmill.engine.runners.base import Cancelled
from embedmill.engine.runners.local import LocalRunner
from embedmill.engine.spec import EngineSpec
from tests.support.running import TEXTS, build, run
from tests.support.works import (
    CPU,
    FakeSession,
    engine_of,
    model,
    provider_of,
    target_of,
    vector_of,
    with_graph,
    work_of,
)

THREE = EngineTable(streams=3, threads=1)
WORKS = st.lists(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), max_size=12), max_size=6)


@pytest.fixture
def session() -> type[FakeSession]:
    """The engine under test opens this session instead of ONNX Runtime's."""

    class Fresh(FakeSession):
        ran: ClassVar[list[Batch]] = []
        opened: ClassVar[list[Any]] = []

    return Fresh


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(works=WORKS, streams=st.integers(1, 4))
def test_vectors_come_back_in_the_order_of_the_texts(
    session: type[FakeSession], works: list[list[list[int]]], streams: int
) -> None:
    with engine_of(model(), EngineTable(streams=streams, threads=1), open_session=session) as engine:
        found = list(engine.embed((number, work_of(texts)) for number, texts in enumerate(works)))
    assert [key for key, _ in found] == list(range(len(works)))
    for texts, (_, vectors) in zip(works, found, strict=True):
        assert vectors.tolist() == [vector_of(text) for text in texts]


def test_many_works_come_back_in_order_though_batches_end_in_any_order(session: type[FakeSession]) -> None:
    draw = np.random.default_rng(1)

    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        time.sleep(float(draw.random()) / 1000)
        starts = tokens.offsets[batch.rows]
        return np.stack([tokens.ids[starts], tokens.lengths[batch.rows]], axis=1).astype(np.float32)

    session.answer = staticmethod(answer)
    works = [[[number + 1] * (1 + (number + row) % 7) for row in range(20)] for number in range(30)]
    with engine_of(model(), THREE, open_session=session) as engine:
        found = list(engine.embed((str(number), work_of(texts)) for number, texts in enumerate(works)))
    assert [key for key, _ in found] == [str(number) for number in range(30)]
    assert [vectors.tolist() for _, vectors in found] == [[vector_of(text) for text in texts] for texts in works]


def test_a_work_without_texts_gives_no_vectors(session: type[FakeSession]) -> None:
    with engine_of(model(dim=5), THREE, open_session=session) as engine:
        [(_, vectors)] = engine.embed([("empty", work_of([]))])
    assert vectors.shape == (0, 5)
    assert vectors.dtype == np.float32


def test_every_batch_is_reported_once_with_its_work(session: type[FakeSession]) -> None:
    works = {"one": work_of([[1] * 5] * 9), "two": work_of([[2] * 3] * 40)}
    rows: Counter[str] = Counter()
    lock = threading.Lock()

    def count(key: str, batch: Batch) -> None:
        with lock:
            rows[key] += len(batch.rows)

    with engine_of(model(), THREE, open_session=session) as engine:
        list(engine.embed(works.items(), on_batch=count))
    assert rows == {"one": 9, "two": 40}


def test_works_are_taken_one_ahead_and_no_further(session: type[FakeSession]) -> None:
    taken: list[int] = []

    def works() -> Iterator[tuple[int, Work]]:
        for number in range(10):
            taken.append(number)
            yield number, work_of([[number + 1]])

    with engine_of(model(), THREE, open_session=session) as engine:
        next(engine.embed(works()))
        assert taken == [0, 1]


def test_an_error_in_one_batch_is_raised_and_ends_the_rest(session: type[FakeSession]) -> None:
    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        raise DeviceError("the device is gone")

    session.answer = staticmethod(answer)
    with engine_of(model(), EngineTable(streams=1, threads=1), open_session=session) as engine:
        embedded = engine.embed((number, work_of([[1] * 9] * 50)) for number in range(3))
        with pytest.raises(DeviceError, match="the device is gone"):
            list(embedded)
    assert len(session.ran) < 100


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("normalized", [True, False])
def test_a_vector_that_is_not_finite_is_refused(session: type[FakeSession], bad: float, normalized: bool) -> None:
    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        vectors = np.tile(np.array([0.6, 0.8], np.float32), (len(batch.rows), 1))
        vectors[-1, 1] = bad
        return vectors

    session.answer = staticmethod(answer)
    with (
        engine_of(model(normalized=normalized), THREE, open_session=session) as engine,
        pytest.raises(DeviceError, match=r"cpu returned a vector that is not finite .* 2 x 3 tokens"),
    ):
        list(engine.embed([("work", work_of([[1, 2, 3]] * 2))]))


@pytest.mark.parametrize("vector", [[0.0, 0.0], [0.6, 0.7], [3.0, 4.0]], ids=str)
def test_a_vector_that_should_be_normalised_and_is_not_is_refused(
    session: type[FakeSession], vector: list[float]
) -> None:
    session.answer = staticmethod(lambda tokens, batch: np.array([vector] * len(batch.rows), np.float32))
    with (
        engine_of(model(normalized=True), THREE, open_session=session) as engine,
        pytest.raises(DeviceError, match="not normalised"),
    ):
        list(engine.embed([("work", work_of([[1, 2, 3]]))]))


def test_vectors_of_any_length_pass_where_the_model_does_not_normalise(session: type[FakeSession]) -> None:
    session.answer = staticmethod(lambda tokens, batch: np.array([[3.0, 4.0]], np.float32))
    with engine_of(model(normalized=False), THREE, open_session=session) as engine:
        [(_, vectors)] = engine.embed([("work", work_of([[1, 2, 3]]))])
    assert vectors.tolist() == [[3, 4]]


def test_cancelling_lets_running_batches_end_and_starts_no_others(session: type[FakeSession]) -> None:
    started, go_on = threading.Event(), threading.Event()

    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        started.set()
        go_on.wait(10)
        return np.ones((len(batch.rows), 2), np.float32)

    session.answer = staticmethod(answer)
    with engine_of(model(), EngineTable(streams=1, threads=1), open_session=session) as engine:

        def cancel() -> None:
            started.wait(10)
            engine.cancel()
            go_on.set()

        threading.Thread(target=cancel).start()
        began = time.perf_counter()
        with pytest.raises(Cancelled):
            list(engine.embed([("work", work_of([[1] * 9] * 100))]))
        assert time.perf_counter() - began < 2
    assert len(session.ran) == 1


def test_a_batch_that_never_ends_is_an_error_and_is_not_waited_for(session: type[FakeSession]) -> None:
    """No thread can be ended from outside; the run can be resumed."""
    go_on = threading.Event()

    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        if batch.sequence == 9:
            go_on.wait(30)
        return np.ones((len(batch.rows), 2), np.float32)

    session.answer = staticmethod(answer)
    began = time.perf_counter()
    with engine_of(model(), EngineTable(streams=2, threads=1, timeout_s=0.4), open_session=session) as engine:
        embedded = engine.embed([("work", work_of([[1] * 9, *[[1] * 3] * 50]))])
        with pytest.raises(DeviceError, match=r"cpu fp32 has not ended a batch for 0\.4 s; the run can be resumed"):
            list(embedded)
    assert 0.3 < time.perf_counter() - began < 10
    go_on.set()


def test_batches_that_end_now_and_then_do_not_hang(session: type[FakeSession]) -> None:
    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        time.sleep(0.1)
        return np.ones((len(batch.rows), 2), np.float32)

    session.answer = staticmethod(answer)
    with engine_of(model(), EngineTable(streams=1, threads=1, timeout_s=0.4), open_session=session) as engine:
        list(engine.embed([("work", work_of([[1] * 9] * 8))]))


def test_leaving_the_engine_ends_what_it_has_begun(session: type[FakeSession]) -> None:
    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        time.sleep(0.005)
        return np.ones((len(batch.rows), 2), np.float32)

    session.answer = staticmethod(answer)
    began = time.perf_counter()
    with engine_of(model(), EngineTable(streams=1, threads=1), open_session=session) as engine:
        next(engine.embed((number, work_of([[1]] if number == 0 else [[1] * 9] * 1000)) for number in range(2)))
    assert time.perf_counter() - began < 2
    assert len(session.ran) < 500


@pytest.mark.parametrize(
    ("asked", "runs", "expected"),
    [
        (EngineTable(), "cores", (6, 1)),
        (EngineTable(), "one", (1, 6)),
        (EngineTable(streams=2), "cores", (2, 3)),
        (EngineTable(streams=4), "cores", (4, 1)),
        (EngineTable(streams=9), "cores", (9, 1)),
        (EngineTable(threads=2), "cores", (6, 2)),
        (EngineTable(), "adapter", (1, 6)),
        (EngineTable(streams=3, threads=5), "one", (1, 5)),
    ],
    ids=str,
)
def test_streams_and_threads_share_the_cores_unless_the_job_says_otherwise(
    session: type[FakeSession],
    asked: EngineTable,
    runs: str,
    expected: tuple[int, int],
) -> None:
    spec = EngineSpec.decide(model(), target_of(provider_of(runs=runs)), asked, cores=6)
    with Engine(LocalRunner(spec, open_session=cast(Any, session))) as engine:
        assert (engine.streams, engine.threads) == expected
    assert session.opened[0][0].threads == expected[1]


@pytest.mark.parametrize("flavour", ["fused", "unfused"])
def test_the_provider_runs_the_graph_of_its_flavour(tiny_model: Path, tmp_path: Path, flavour: str) -> None:
    bundle = build(tiny_model, tmp_path / "bundle")
    with engine_of(bundle.model(TextTable()), THREE, provider=with_graph(CPU, flavour)) as engine:
        [(_, vectors)] = engine.embed([("work", work_of(TEXTS))])
    np.testing.assert_allclose(vectors, run(bundle, "fused"), atol=1e-5)
