"""Batches shrink at the next one while memory is scarce, come back when it has eased, and lose no row."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import DeviceError, OutOfMemory
from embedmill.base.records import Batch, FloatArray, Model, Packing, Tokens, Work
from embedmill.base.results import Change, EngineFacts
from embedmill.engine.engine import Engine
from embedmill.engine.machine.memory import MemoryReading, Probe
from embedmill.engine.memory.guard import Guard
from embedmill.engine.sessions.canary import cosines_of
from embedmill.engine.sessions.options import SessionPlan
from embedmill.engine.sessions.session import Session
from tests.support.readings import GIB, LOST, MIB, device
from tests.support.running import build
from tests.support.works import CPU, FakeSession, engine_on, fixed, model, provider_of, target_of, vector_of, work_of

# Of 4 GiB that are free the ceiling leaves 615 MiB, and half of that is to stay free.
PLENTY, SHORT, SCARCE = device(4 * GIB), device(200 * MIB), device(100 * MIB)
ONE = EngineTable(streams=1, threads=1)
LADDER = fixed((4, 8), (2, 16))
MOON = provider_of()


class Scripted(Probe):
    """A probe that tells what a test makes it tell."""

    def __init__(self) -> None:
        self.now: MemoryReading = PLENTY
        self.closed = False
        self._looks = threading.Semaphore(0)

    def read(self) -> MemoryReading:
        found = self.now
        self._looks.release()
        return found

    def close(self) -> None:
        self.closed = True

    def tell(self, reading: MemoryReading) -> None:
        """Return when the watch has kept this reading: the look after one that began with it."""
        self.now = reading
        while self._looks.acquire(blocking=False):
            pass
        for _ in range(3):
            assert self._looks.acquire(timeout=5)


class Script:
    """What happens before each batch, by the number of batches that ran; and the clock that a guard sees."""

    def __init__(self) -> None:
        self.probe = Scripted()
        self.now_s = 0.0
        self.said: list[str] = []

    def guard(self, **options: Any) -> Guard:
        # Not more often: for a watch that costs more than its share of this clock's seconds looks rarely.
        return Guard(self.probe, every_s=0.005, clock=lambda: self.now_s, on_change=self.said.append, **options)

    def later(self, seconds: float) -> None:
        """Time passes, and the watch looks."""
        self.now_s += seconds
        self.probe.tell(self.probe.now)


@pytest.fixture
def session() -> type[FakeSession]:
    """The engine under test opens this session instead of ONNX Runtime's."""

    class Fresh(FakeSession):
        ran: ClassVar[list[Batch]] = []
        opened: ClassVar[list[Any]] = []
        closed: ClassVar[list[SessionPlan]] = []

    return Fresh


def plain(tokens: Tokens, batch: Batch) -> FloatArray:
    texts = [tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]].tolist() for row in batch.rows]
    return np.array([vector_of(text) for text in texts], np.float32)


def shapes(session: type[FakeSession]) -> list[tuple[int, int]]:
    return [(batch.size, batch.sequence) for batch in session.ran]


def embed(engine: Engine, work: Work) -> list[list[float]]:
    with engine:
        [(_, vectors)] = engine.embed([("work", work)])
    found: list[list[float]] = vectors.tolist()
    return found


def changes_of(facts: EngineFacts) -> list[Change]:
    assert facts.memory is not None
    return facts.memory.changes


class TestPressure:
    TEXTS: ClassVar[list[list[int]]] = [[number] * 4 for number in range(1, 41)]

    def run(
        self, session: type[FakeSession], script: Script, steps: dict[int, Callable[[], None]], packing: Packing
    ) -> tuple[list[list[float]], EngineFacts]:
        """Embed the texts; `steps` are done while the batch of that number runs."""

        def answer(tokens: Tokens, batch: Batch) -> FloatArray:
            steps.get(len(session.ran), lambda: None)()
            return plain(tokens, batch)

        session.answer = staticmethod(answer)
        engine = engine_on(
            model(), target_of(MOON), packing, EngineTable(threads=1), guard=script.guard(), open_session=session
        )
        # One thread: which batch is the next is then certain.
        engine._pool._max_workers = 1
        found = embed(engine, work_of(self.TEXTS, packing))
        assert script.probe.closed
        return found, engine.facts()

    def test_batches_shrink_at_the_next_one_and_grow_back(self, session: type[FakeSession]) -> None:
        script = Script()
        steps = {
            2: lambda: script.probe.tell(SHORT),
            4: lambda: script.probe.tell(PLENTY),
            5: lambda: script.later(9),
            6: lambda: script.later(3),
        }
        found, facts = self.run(session, script, steps, Packing(budget_tokens=16))
        assert found == [vector_of(text) for text in self.TEXTS]
        assert [size for size, _ in shapes(session)] == [4, 4, 2, 2, 2, 2, *[4] * 6]
        assert [(change.from_scale, change.to_scale) for change in changes_of(facts)] == [(1, 0.5), (0.5, 1)]
        shrink, kept = "batches shrink from full size to 1/2", "200 MiB free of the 307 MiB to be kept free (NVML)"
        assert script.said[0] == f"{shrink}: {kept}"
        assert script.said[1].startswith("batches grow back from 1/2 to full size: no pressure for 1")

    def test_a_session_of_any_shape_gives_back_what_its_largest_batch_took(self, session: type[FakeSession]) -> None:
        script = Script()
        self.run(session, script, {2: lambda: script.probe.tell(SHORT)}, Packing(budget_tokens=16))
        assert (len(session.opened), len(session.closed)) == (2, 1)

    def test_fixed_shapes_have_other_sessions_while_memory_is_scarce(self, session: type[FakeSession]) -> None:
        script = Script()
        steps = {
            2: lambda: script.probe.tell(SCARCE),
            4: lambda: script.probe.tell(PLENTY),
            5: lambda: script.later(11),
            7: lambda: script.later(11),
        }
        found, facts = self.run(session, script, steps, LADDER)
        assert found == [vector_of(text) for text in self.TEXTS]
        assert shapes(session) == [(4, 8)] * 2 + [(1, 8)] * 3 + [(2, 8)] * 2 + [(4, 8)] * 7
        rows = [plan.free["batch"] for plan, *_ in session.opened]
        assert rows == [4, 1, 2, 4]
        assert [plan.free["batch"] for plan in session.closed] == rows[:-1]
        assert [one.rows for one in facts.sessions] == rows

    def test_what_was_seen_is_told(self, session: type[FakeSession]) -> None:
        script = Script()
        _, facts = self.run(session, script, {2: lambda: script.probe.tell(SHORT)}, Packing(budget_tokens=16))
        memory = facts.memory
        assert memory is not None
        assert (memory.source, memory.scope, memory.ceiling_bytes) == ("NVML", "device", 8 * GIB)
        assert (memory.least_free_bytes, memory.most_used_bytes) == (200 * MIB, 8 * GIB - 200 * MIB)
        assert memory.reserve_bytes == (4 * GIB - int(4 * GIB * 0.85)) // 2
        assert memory.samples > 2
        assert memory.series

    def test_a_probe_that_fails_half_way_leaves_the_last_safe_size(self, session: type[FakeSession]) -> None:
        script = Script()
        steps = {
            2: lambda: script.probe.tell(SHORT),
            4: lambda: script.probe.tell(LOST),
            5: lambda: script.later(30),
        }
        found, facts = self.run(session, script, steps, Packing(budget_tokens=16))
        assert found == [vector_of(text) for text in self.TEXTS]
        assert {size for size, _ in shapes(session)[2:]} == {2}
        memory = facts.memory
        assert memory is not None
        assert memory.unknown >= 3
        assert memory.reasons["GPU is lost"] == memory.unknown
        assert len(memory.changes) == 1

    def test_a_probe_that_never_knows_leaves_batches_whole(self, session: type[FakeSession]) -> None:
        script = Script()
        script.probe.now = LOST
        found, facts = self.run(session, script, {2: lambda: script.later(3)}, Packing(budget_tokens=16))
        assert found == [vector_of(text) for text in self.TEXTS]
        assert set(shapes(session)) == {(4, 4)}
        memory = facts.memory
        assert memory is not None
        assert (memory.least_free_bytes, memory.reserve_bytes, memory.source) == (None, None, "NVML")

    def test_batches_that_suddenly_take_twice_their_time_are_pressure_where_a_driver_pages(
        self, session: type[FakeSession]
    ) -> None:
        for own, scales in ((True, [0.5]), (False, [])):
            guard = Script().guard(device=own)
            with engine_on(
                model(), target_of(MOON), Packing(budget_tokens=16), ONE, guard=guard, open_session=session
            ) as engine:
                on_run = session.opened[-1][2]["on_run"]
                for seconds in (*[1.0] * 6, *[2.5] * 3):
                    on_run(Batch(rows=np.arange(4), size=4, sequence=4), seconds)
                assert [change.to_scale for change in changes_of(engine.facts())] == scales


class Crowded:
    """Answers of sessions that have no memory for more than some rows, and fail for good once they failed."""

    def __init__(self, session: type[FakeSession], most: int) -> None:
        self.most = most
        self.broken: set[int] = set()
        self.session = session
        session.answer = staticmethod(self)

    def __call__(self, tokens: Tokens, batch: Batch) -> FloatArray:
        generation = len(self.session.opened)
        if generation in self.broken or batch.size > self.most:
            self.broken.add(generation)
            raise OutOfMemory(f"no memory for {batch.size} rows")
        return plain(tokens, batch)


class TestOutOfMemory:
    TEXTS: ClassVar[list[list[int]]] = [[number] * (1 + number % 4) for number in range(1, 61)]

    @pytest.mark.parametrize("packing", [Packing(budget_tokens=64), fixed((16, 4))], ids=["any", "fixed"])
    @pytest.mark.parametrize("most", [1, 3, 8])
    @pytest.mark.parametrize("streams", [1, 3])
    def test_a_batch_that_is_too_large_runs_in_halves_and_no_row_is_lost(
        self, session: type[FakeSession], packing: Packing, most: int, streams: int
    ) -> None:
        Crowded(session, most)
        provider = CPU if not packing.buckets else MOON
        engine = engine_on(
            model(), target_of(provider), packing, EngineTable(streams=streams, threads=1), open_session=session
        )
        assert embed(engine, work_of(self.TEXTS, packing)) == [vector_of(text) for text in self.TEXTS]

    def test_a_session_that_failed_is_closed_before_another_is_opened(self, session: type[FakeSession]) -> None:
        Crowded(session, 8)
        work = work_of(self.TEXTS, Packing(budget_tokens=64))
        embed(engine_on(model(), target_of(), Packing(budget_tokens=64), ONE, open_session=session), work)
        assert len(session.opened) == len(session.closed) + 1

    def test_the_size_stays_small_afterwards(self, session: type[FakeSession]) -> None:
        Crowded(session, 4)
        engine = engine_on(model(), target_of(MOON), fixed((16, 4)), ONE, open_session=session)
        embed(engine, work_of([[1] * 4] * 64, fixed((16, 4))))
        sizes = [size for size, _ in shapes(session)]
        # Two threads may both begin with a whole batch.
        assert sizes.count(16) <= 2
        assert set(sizes[6:]) == {4}
        changes = changes_of(engine.facts())
        assert [change.to_scale for change in changes] == [0.5, 0.25]
        assert changes[0].reason == "there was no memory for a batch of 16 x 4 tokens"

    def test_a_half_that_is_too_large_is_halved_again_and_at_one_row_it_ends(self, session: type[FakeSession]) -> None:
        Crowded(session, 0)
        engine = engine_on(model(), target_of(), Packing(budget_tokens=64), ONE, open_session=session)
        with (
            pytest.raises(DeviceError, match=r"cpu fp32 has no memory for even one text of 4 tokens") as info,
            engine,
        ):
            list(engine.embed([("work", work_of([[7] * 4] * 16, Packing(budget_tokens=64)))]))
        assert info.value.exit_code == 5
        assert [size for size, _ in shapes(session)] == [16, 8, 4, 2, 1]

    def test_one_row_is_tried_again_alone_in_a_new_session(self, session: type[FakeSession]) -> None:
        crowded = Crowded(session, 16)
        crowded.broken.add(1)
        engine = engine_on(model(), target_of(), Packing(budget_tokens=64), ONE, open_session=session)
        assert embed(engine, work_of([[7] * 4])) == [[7, 4]]
        assert len(session.opened) == 2

    def test_no_other_batch_runs_beside_one_that_had_no_memory(self, session: type[FakeSession]) -> None:
        """Three streams that fit alone, but not side by side."""
        inside, lock = list[int](), threading.Lock()
        beside = threading.Barrier(3)

        def answer(tokens: Tokens, batch: Batch) -> FloatArray:
            with lock:
                inside.append(batch.size)
            try:
                if len(session.opened) == 1:
                    beside.wait(5)
                with lock:
                    crowded = len(inside) > 1
                if len(session.opened) == 1:
                    beside.wait(5)
                if crowded:
                    raise OutOfMemory("crowded")
                return plain(tokens, batch)
            finally:
                with lock:
                    inside.pop()

        session.answer = staticmethod(answer)
        packing = Packing(budget_tokens=4)
        engine = engine_on(model(), target_of(), packing, EngineTable(streams=3, threads=1), open_session=session)
        assert embed(engine, work_of([[1] * 4, [2] * 4, [3] * 4], packing)) == [[1, 4], [2, 4], [3, 4]]

    def test_a_lost_device_is_no_matter_of_size(self, session: type[FakeSession]) -> None:
        def answer(tokens: Tokens, batch: Batch) -> FloatArray:
            raise DeviceError("the device was lost")

        session.answer = staticmethod(answer)
        with pytest.raises(DeviceError, match="the device was lost"):
            embed(
                engine_on(model(), target_of(), Packing(budget_tokens=64), ONE, open_session=session),
                work_of(self.TEXTS),
            )
        assert len(session.opened) == 1


class TestRealSessions:
    """ONNX Runtime computes; memory is scarce above a hidden size."""

    PACKINGS: ClassVar[list[Packing]] = [Packing(budget_tokens=256), fixed((16, 16), (8, 32))]

    def vectors(self, known: Model, packing: Packing, open_session: type[Session] = Session) -> FloatArray:
        draw = np.random.default_rng(3)
        texts = [[2, *draw.integers(5, 60, draw.integers(1, 28)).tolist(), 3] for _ in range(64)]
        with engine_on(
            known, target_of(), packing, EngineTable(streams=2, threads=1), open_session=open_session
        ) as engine:
            [(_, vectors)] = engine.embed([("work", work_of(texts, packing))])
            changes = engine.facts().memory
        assert (changes is not None) == (open_session is not Session)
        return vectors

    @pytest.mark.parametrize("packing", PACKINGS, ids=["any", "fixed"])
    def test_batches_in_parts_give_the_vectors_of_whole_ones(
        self, tiny_model: Path, tmp_path: Path, packing: Packing
    ) -> None:
        known = build(tiny_model, tmp_path / "bundle").model(TextTable())
        whole = self.vectors(known, packing)

        class ShortOfMemory(Session):
            def run(self, tokens: Tokens, batch: Batch) -> FloatArray:
                if batch.size > 4:
                    raise OutOfMemory("no more than 4 rows")
                return super().run(tokens, batch)

        parted = self.vectors(known, packing, ShortOfMemory)
        assert cosines_of(parted, whole).min() > 0.9999999
