"""Known texts tell a session that computes wrongly, before any work is done with it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import DeviceError
from embedmill.base.records import Batch, Bucket, Canaries, FloatArray, Packing, Tokens
from embedmill.base.results import SessionFacts
from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.catalogue.entry import Ladder, Provider
from embedmill.engine.engine import Engine
from embedmill.engine.sessions.canary import canary_cosine, reference_vectors
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.sessions.pool import SessionPool
from embedmill.engine.target import Target, packing_for
from embedmill.model.bundle import Bundle
from embedmill.model.canaries import TEXTS
from tests.support.fake_devices import device_of
from tests.support.running import build
from tests.support.works import (
    FakeSession,
    canaries_of,
    engine_of,
    engine_on,
    fixed,
    model,
    provider_of,
    target_of,
    vector_of,
    work_of,
)

THREE = [[5, 9], [7, 8, 9, 1], [3, 3, 3, 3, 3, 3]]
CANARIES = canaries_of(THREE, [vector_of(text) for text in THREE])
ONE = EngineTable(streams=1, threads=1)
Answer = Callable[[Tokens, Batch], FloatArray]


class Answers:
    """Runs batches with a function of text numbers, and remembers them."""

    def __init__(self, change: Callable[[int, list[int]], list[float]] = lambda _, vector: [*vector]) -> None:
        self.change = change
        self.batches: list[Batch] = []

    def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
        self.batches.append(batch)
        vectors = [
            self.change(int(row), vector_of(tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist()))
            for row in batch.rows
        ]
        return np.array(vectors, np.float32)


class TestCosine:
    def test_equal_vectors_have_cosine_1(self) -> None:
        assert canary_cosine(Answers().run, CANARIES, None) == pytest.approx(1, abs=1e-12)

    def test_length_does_not_count(self) -> None:
        longer = Answers(lambda _, vector: [7.0 * number for number in vector])
        assert canary_cosine(longer.run, CANARIES, None) == pytest.approx(1, abs=1e-7)

    @pytest.mark.parametrize("wrong", [0, 1, 2])
    def test_the_worst_canary_counts(self, wrong: int) -> None:
        known = CANARIES.vectors[wrong].astype(float)
        turned = [float(-known[1]), float(known[0])]
        answers = Answers(lambda row, vector: turned if row == wrong else [*vector])
        assert canary_cosine(answers.run, CANARIES, None) == pytest.approx(0, abs=1e-7)

    @pytest.mark.parametrize("wrong", [0, 1, 2])
    def test_a_nan_of_any_canary_is_the_cosine(self, wrong: int) -> None:
        answers = Answers(lambda row, vector: [float("nan"), 1] if row == wrong else [*vector])
        assert np.isnan(canary_cosine(answers.run, CANARIES, None))

    def test_a_vector_of_zeros_has_cosine_0(self) -> None:
        assert canary_cosine(Answers(lambda *_: [0.0, 0.0]).run, CANARIES, None) == 0

    def test_every_canary_runs_once_in_any_shape(self) -> None:
        answers = Answers()
        canary_cosine(answers.run, CANARIES, None)
        assert sorted(row for batch in answers.batches for row in batch.rows.tolist()) == [0, 1, 2]

    def test_in_a_fixed_shape_run_those_that_fit(self) -> None:
        answers = Answers(lambda row, vector: [-1.0, -1.0] if row == 2 else [*vector])
        assert canary_cosine(answers.run, CANARIES, Bucket(rows=8, sequence=4)) == pytest.approx(1)
        [batch] = answers.batches
        assert (sorted(batch.rows.tolist()), batch.size, batch.sequence) == ([0, 1], 8, 4)

    def test_more_canaries_than_a_bucket_has_rows_take_several_batches(self) -> None:
        answers = Answers()
        canary_cosine(answers.run, CANARIES, Bucket(rows=2, sequence=6))
        assert [(len(batch.rows), batch.size, batch.sequence) for batch in answers.batches] == [(2, 2, 6), (1, 2, 6)]

    def test_a_model_without_canaries_is_taken_at_its_word(self) -> None:
        assert canary_cosine(Answers().run, model().canaries, None) == 1


class TestBundle:
    """The canaries of real bundles."""

    def canaries(self, bundle: Bundle) -> Canaries:
        return bundle.model(TextTable()).canaries

    def test_there_are_sixteen_of_various_lengths(self, bundle: Bundle) -> None:
        found = self.canaries(bundle)
        assert found.vectors.shape == (16, 384)
        assert found.vectors.dtype == np.float32
        lengths = found.tokens.lengths
        assert len(lengths) == len(TEXTS) == 16
        assert len(set(lengths.tolist())) >= 12
        assert (lengths.min(), lengths.max()) == (3, pytest.approx(230, abs=30))

    @pytest.mark.parametrize(
        "provider",
        [provider for provider in PROVIDERS if isinstance(provider.shapes, Ladder)],
        ids=lambda provider: provider.name,
    )
    def test_every_bucket_of_every_ladder_has_several(self, bundle: Bundle, provider: Provider) -> None:
        known = bundle.model(TextTable())
        for bucket in packing_for(provider, known, EngineTable()).buckets:
            assert (known.canaries.tokens.lengths <= bucket.sequence).sum() >= 8

    @pytest.mark.parametrize("max_tokens", [3, 5, 32])
    def test_the_smallest_bucket_of_a_job_has_one(self, tiny_model: Path, tmp_path: Path, max_tokens: int) -> None:
        known = build(tiny_model, tmp_path / "bundle").model(TextTable(max_tokens=max_tokens))
        assert known.canaries.tokens.lengths.min() <= max_tokens

    def test_they_are_what_the_cpu_computes_text_by_text(self, tiny_model: Path, tmp_path: Path) -> None:
        known = build(tiny_model, tmp_path / "bundle").model(TextTable())
        again = reference_vectors(known, known.canaries.tokens)
        np.testing.assert_array_equal(known.canaries.vectors, again)
        with engine_of(known, ONE) as engine:
            assert engine.facts().sessions[0].canary_cosine == pytest.approx(1, abs=1e-6)


@pytest.fixture
def session() -> type[FakeSession]:
    """The engine under test opens this session instead of ONNX Runtime's."""

    class Fresh(FakeSession):
        ran: ClassVar[list[Batch]] = []
        opened: ClassVar[list[Any]] = []

    return Fresh


def turned(cosine: float) -> Answer:
    """Vectors at a cosine to those that the canaries have; texts of other tokens get (1, 1)."""

    def answer(tokens: Tokens, batch: Batch) -> FloatArray:
        starts = tokens.offsets[batch.rows]
        known = np.stack([tokens.ids[starts], tokens.lengths[batch.rows]], axis=1).astype(np.float64)
        angle = np.arccos(cosine)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        vectors: FloatArray = (known @ turn).astype(np.float32)
        return vectors

    return answer


class TestEngine:
    PROVIDER = provider_of()

    def test_a_session_below_the_floor_is_refused_with_the_figures(self, session: type[FakeSession]) -> None:
        session.answer = staticmethod(turned(0.9998))
        target = Target(provider=self.PROVIDER, precision="fp32", device=device_of(), chosen="")
        with pytest.raises(DeviceError) as refused:
            engine_on(model(canaries=CANARIES), target, Packing(budget_tokens=16), ONE, open_session=session)
        assert str(refused.value) == (
            "moon fp32 on Moon GPU computes this model wrongly: a canary's cosine to its vector on the CPU is"
            " 0.9998000, and 0.99999 is the least allowed in fp32; nothing was embedded with it"
        )

    @pytest.mark.parametrize("mended", [True, False])
    def test_a_kept_context_that_fails_is_thrown_away_and_compiled_again(
        self, session: type[FakeSession], tmp_path: Path, mended: bool
    ) -> None:
        class Kept(session):  # type: ignore[misc, valid-type]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options)
                self.context = "old" if len(self.opened) == 1 else None

            def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
                vectors: FloatArray = turned(1.0 if mended and self.context is None else 0.5)(tokens, batch)
                return vectors

        (tmp_path / "old").mkdir()
        target = Target(provider=self.PROVIDER, precision="fp32", device=None, chosen="")
        contexts = ContextCache(tmp_path)

        def engine() -> Engine:
            return engine_on(
                model(canaries=CANARIES), target, Packing(budget_tokens=16), ONE, contexts=contexts, open_session=Kept
            )

        if mended:
            with engine() as opened:
                assert opened.facts().sessions[0].canary_cosine == pytest.approx(1)
        else:
            with pytest.raises(DeviceError, match="computes this model wrongly"):
                engine()
        assert not (tmp_path / "old").exists()
        assert len(session.opened) == 2

    def test_a_session_above_the_floor_is_taken(self, session: type[FakeSession]) -> None:
        session.answer = staticmethod(turned(0.999995))
        with engine_of(model(canaries=CANARIES), ONE, provider=self.PROVIDER, open_session=session) as engine:
            assert engine.facts().sessions[0].canary_cosine == pytest.approx(0.999995, abs=1e-7)

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=str)
    def test_a_vector_that_is_not_finite_is_refused(self, session: type[FakeSession], bad: float) -> None:
        session.answer = staticmethod(lambda tokens, batch: np.full((len(batch.rows), 2), bad, np.float32))
        with pytest.raises(DeviceError, match=r"computes this model wrongly: .* is nan, and 0\.99999"):
            engine_of(model(canaries=CANARIES), ONE, provider=self.PROVIDER, open_session=session)

    def test_a_fixed_shape_is_refused_when_its_first_batch_comes(self, session: type[FakeSession]) -> None:
        packing = fixed((4, 8))
        with engine_of(
            model(canaries=CANARIES), ONE, provider=self.PROVIDER, packing=packing, open_session=session
        ) as engine:
            session.answer = staticmethod(turned(0.5))
            with pytest.raises(DeviceError, match="computes this model wrongly"):
                list(engine.embed([("work", work_of([[1, 2]], packing))]))
            assert engine.facts().sessions == []


class TestSessions:
    PACKING = fixed((4, 8), (2, 16), (1, 32))
    PROVIDER = provider_of()

    def engine(self, **options: Any) -> Engine:
        known = model(canaries=CANARIES)
        return engine_of(known, EngineTable(threads=1), provider=self.PROVIDER, packing=self.PACKING, **options)

    def test_a_fixed_shape_has_a_session_only_when_a_batch_needs_it(self, session: type[FakeSession]) -> None:
        with self.engine(open_session=session) as engine:
            assert session.opened == []
            list(engine.embed([("short", work_of([[1] * 5] * 4, self.PACKING))]))
            assert [plan.free for plan, *_ in session.opened] == [{"batch": 4, "sequence": 8}]
            list(engine.embed([("long", work_of([[1] * 30, [1] * 5], self.PACKING))]))
            list(engine.embed([("again", work_of([[1] * 30, [1] * 5], self.PACKING))]))
        assert [plan.free["sequence"] for plan, *_ in session.opened] == [8, 32]

    def test_any_shape_has_one_session_at_once(self, session: type[FakeSession]) -> None:
        with engine_of(model(canaries=CANARIES), ONE, provider=self.PROVIDER, open_session=session) as engine:
            assert [plan.free for plan, *_ in session.opened] == [{}]
            list(engine.embed([("work", work_of([[1] * 5, [1] * 9]))]))
        assert len(session.opened) == 1

    def test_two_threads_open_a_session_once(self, session: type[FakeSession]) -> None:
        both = threading.Barrier(2)

        class Slow(session):  # type: ignore[misc, valid-type]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                time.sleep(0.05)
                super().__init__(*arguments, **options)

        pool = SessionPool(model(), target_of(self.PROVIDER), threads=1, on_run=lambda *_: None, open_session=Slow)

        def open_it(_: int) -> Any:
            both.wait(10)
            return pool.of(self.PACKING.buckets[0])

        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(open_it, range(2))
        assert first is second
        assert len(session.opened) == 1

    def test_every_batch_runs_in_the_session_of_its_shape(self, session: type[FakeSession]) -> None:
        with self.engine(open_session=session) as engine:
            [(_, vectors)] = engine.embed([("work", work_of([[3] * 30, [2] * 12, [1] * 5], self.PACKING))])
        assert vectors.tolist() == [[3, 30], [2, 12], [1, 5]]
        work = Counter((batch.size, batch.sequence) for batch in session.ran)
        assert set(work) <= {(4, 8), (2, 16), (1, 32)}

    def test_what_computed_is_told(self, session: type[FakeSession]) -> None:
        with self.engine(open_session=session) as engine:
            list(engine.embed([("work", work_of([[1] * 30, [1] * 5], self.PACKING))]))
            list(engine.embed([("work", work_of([[1] * 5] * 4, self.PACKING))]))
            facts = engine.facts()
        assert (facts.provider, facts.device, facts.precision, facts.chosen) == ("moon", "", "fp32", "asked for")
        assert (facts.streams, facts.threads) == (1, 1)
        shapes = [(fact.rows, fact.sequence) for fact in facts.sessions]
        assert shapes == [(1, 32), (4, 8)]
        for fact in facts.sessions:
            assert isinstance(fact, SessionFacts)
            assert (fact.nodes_placed, fact.nodes) == (7, 7)
            assert fact.canary_cosine == pytest.approx(1)
            assert 0 <= fact.seconds < 5

    def test_a_session_of_any_shape_is_told_as_0_by_0(self, session: type[FakeSession]) -> None:
        with engine_of(model(canaries=CANARIES), ONE, provider=self.PROVIDER, open_session=session) as engine:
            assert [(fact.rows, fact.sequence) for fact in engine.facts().sessions] == [(0, 0)]

    def test_seconds_are_summed_over_sessions(self, session: type[FakeSession]) -> None:
        with self.engine(open_session=session) as engine:
            list(engine.embed([("work", work_of([[1] * 30], self.PACKING))]))
            list(engine.embed([("work", work_of([[1] * 5] * 4, self.PACKING))]))
            assert engine.busy_s == 1.0

    def test_the_memory_of_a_job_and_its_device_reach_the_session(self, session: type[FakeSession]) -> None:
        device = device_of(Adapter="3")
        provider = provider_of(memory_limit="limit")
        target = Target(provider=provider, precision="fp32", device=device, chosen="")
        with engine_on(
            model(), target, Packing(budget_tokens=16), EngineTable(memory_bytes=5000), open_session=session
        ):
            [(plan, _, options)] = session.opened
        assert plan.options == {"limit": "5000"}
        assert {"pad_id": 0, "device": device, "contexts": None}.items() <= options.items()

    def test_a_target_without_device_says_so_by_its_label(self) -> None:
        assert target_of(self.PROVIDER).label == "moon fp32"
