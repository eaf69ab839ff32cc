"""Sessions in a process of their own: whatever ends that process, a new one goes on and no row is lost."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.errors import DeviceError, DeviceLost, OutOfMemory
from embedmill.base.process.worker import worker_of
from embedmill.base.records import Packing
from embedmill.base.results import EngineFacts
from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.engine import Engine
from embedmill.engine.runners.base import Cancelled, RunnerOptions
from embedmill.engine.runners.messages import decode_spec, encode_spec
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.spec import EngineSpec
from tests.base.process.test_worker import children
from tests.support.scripted_process import SCRIPT
from tests.support.works import canaries_of, fixed, model, provider_of, target_of, vector_of, work_of

START = partial(worker_of, "tests.support.scripted_process")
PACKING = Packing(budget_tokens=16)
# Fifteen batches of four texts.
TEXTS = [[number] * 4 for number in range(1, 61)]
LAST = 14
MOON = provider_of()

Scene = Callable[..., Engine]


@pytest.fixture
def said() -> list[str]:
    """What people were told."""
    return []


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> Scene:
    """An engine whose device does as the script says."""

    def begin(*, packing: Packing = PACKING, timeout_s: float = 300, in_flight: int = 2, **script: object) -> Engine:
        monkeypatch.setenv(SCRIPT, json.dumps({"folder": str(tmp_path), **script}))
        spec = EngineSpec.decide(model(), target_of(MOON), EngineTable(timeout_s=timeout_s, threads=1), packing)
        spec = structs.replace(spec, in_flight=in_flight)
        return Engine(ProcessRunner(spec, RunnerOptions(watched=False), said.append, start=START))

    return begin


def embedded(engine: Engine, packing: Packing = PACKING) -> EngineFacts:
    """Embed the texts, and see that each has its vector."""
    with engine:
        [(_, vectors)] = engine.embed([("work", work_of(TEXTS, packing))])
        facts = engine.facts()
        assert vectors.tolist() == [vector_of(text) for text in TEXTS]
        assert engine.tokens == sum(map(len, TEXTS))
    assert children() == []
    return facts


def batches(folder: Path) -> int:
    """How many batches were begun, in all processes."""
    return (folder / "batches").stat().st_size


def test_it_computes_as_in_this_process(scene: Scene, tmp_path: Path) -> None:
    engine = scene()
    facts = embedded(engine)
    assert facts.losses == []
    assert [(session.nodes_placed, session.nodes) for session in facts.sessions] == [(7, 7)]
    assert engine.busy_s == 0.5
    assert batches(tmp_path) == 15


@pytest.mark.parametrize(
    "batch",
    [pytest.param(0, marks=pytest.mark.crash), 7, pytest.param(LAST, marks=pytest.mark.crash)],
    ids=["first", "middle", "last"],
)
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("crash", r"its process crashed with signal 11 \(SIGSEGV\)"),
        ("lost", "887A0005"),
        pytest.param("hang", r"it has not ended a batch for 4 s, which .*", marks=pytest.mark.crash),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_lost_device_costs_a_new_process_and_no_row(
    scene: Scene, said: list[str], fault: str, why: str, batch: int
) -> None:
    facts = embedded(scene(faults={batch: fault}, timeout_s=4 if fault == "hang" else 300, in_flight=1))
    [loss] = facts.losses
    assert re.fullmatch(why, loss)
    [told] = [words for words in said if "lost" in words]
    assert told == f"moon fp32 was lost ({loss}); the work goes on in a new process"
    # A process says which sessions it opened with the first batch that it ends.
    assert len(facts.sessions) == (2 if batch else 1)


@pytest.mark.crash
def test_two_batches_that_one_process_owed_are_one_loss(scene: Scene) -> None:
    assert len(embedded(scene(faults={4: "lost", 5: "crash"}, in_flight=2)).losses) <= 2


@pytest.mark.crash
def test_a_device_that_is_lost_again_and_again_ends_the_run(scene: Scene, said: list[str], tmp_path: Path) -> None:
    with (
        scene(lost_above=0, in_flight=1) as engine,
        pytest.raises(DeviceLost, match=r"moon fp32 was lost 4 times in a row, .* 887A0005; the run can be resumed"),
    ):
        list(engine.embed([("work", work_of(TEXTS, PACKING))]))
    assert children() == []
    assert batches(tmp_path) == 4


@pytest.mark.crash
def test_losses_far_from_each_other_go_on_for_ever(scene: Scene) -> None:
    """Each of them after ten batches."""
    assert len(embedded(scene(faults=dict.fromkeys((0, 11), "lost"), in_flight=1)).losses) == 2


@pytest.mark.crash
def test_batches_that_take_the_device_down_run_in_parts(scene: Scene, said: list[str]) -> None:
    """A driver resets a device that computes too long."""
    facts = embedded(scene(lost_above=1, in_flight=1))
    assert len(facts.losses) == 3
    scales = [words for words in said if words.startswith("at most")]
    assert scales == ["at most 1", "at most 1", "at most 0.5", "at most 0.25"]


@pytest.mark.parametrize("packing", [PACKING, fixed((8, 4), (4, 8))], ids=["any", "fixed"])
@pytest.mark.parametrize(
    "most", [1, pytest.param(2, marks=pytest.mark.crash), pytest.param(3, marks=pytest.mark.crash)]
)
def test_want_of_memory_is_met_in_the_process(scene: Scene, packing: Packing, most: int) -> None:
    facts = embedded(scene(memory_above=most, packing=packing), packing)
    assert facts.losses == []
    assert facts.memory is not None
    assert facts.memory.changes


@pytest.mark.crash
def test_no_memory_for_one_text_is_an_error(scene: Scene) -> None:
    with scene(memory_above=0) as engine, pytest.raises(OutOfMemory, match="no memory for even one text of 4 tokens"):
        list(engine.embed([("work", work_of(TEXTS, PACKING))]))


def test_an_error_that_is_no_loss_is_raised_at_once(scene: Scene, said: list[str]) -> None:
    with scene(faults={3: "error"}, in_flight=1) as engine, pytest.raises(DeviceError, match=r"^it cannot$"):
        list(engine.embed([("work", work_of(TEXTS, PACKING))]))
    # Of one process only.
    assert said == ["at most 1"]


def test_a_device_that_cannot_be_opened_is_an_error(scene: Scene) -> None:
    with scene(refuses="no moon tonight") as engine, pytest.raises(DeviceError, match=r"^no moon tonight$"):
        list(engine.embed([("work", work_of(TEXTS, PACKING))]))
    assert children() == []


def test_a_vector_that_is_not_finite_is_refused(scene: Scene) -> None:
    with (
        scene(faults={9: "nan"}) as engine,
        pytest.raises(DeviceError, match="a vector that is not finite"),
    ):
        list(engine.embed([("work", work_of(TEXTS, PACKING))]))


@pytest.mark.crash
def test_a_defect_of_the_process_is_told(scene: Scene, said: list[str]) -> None:
    embedded(scene(faults={3: "defect"}, in_flight=1))
    assert "KeyError: 'a defect'" in said[1]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_stops_the_parent_is_the_parents_affair(scene: Scene) -> None:
    assert embedded(scene(faults={3: "interrupt"})).losses == []


def test_cancelling_does_not_wait_for_the_device(scene: Scene) -> None:
    with scene(faults={0: "hang"}) as engine:
        embedding = engine.embed((number, work_of(TEXTS, PACKING)) for number in range(3))
        threading.Timer(1, engine.cancel).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            next(embedding)
        assert 0.9 < time.monotonic() - began < 5
    assert children() == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_parent_that_is_killed_takes_its_process_along(tmp_path: Path) -> None:
    program = textwrap.dedent(f"""
        import json, os
        os.environ["{SCRIPT}"] = json.dumps({{"folder": {str(tmp_path)!r}, "faults": {{"0": "hang"}}}})
        from tests.engine.runners.test_process import *
        spec = EngineSpec.decide(model(), target_of(MOON), EngineTable(threads=1), PACKING)
        with Engine(ProcessRunner(spec, RunnerOptions(watched=False), print, start=START)) as engine:
            list(engine.embed([("work", work_of(TEXTS, PACKING))]))
    """)
    with subprocess.Popen([sys.executable, "-c", program]) as parent:
        while not (tmp_path / "batches").exists():
            time.sleep(0.02)
        [child] = psutil.Process(parent.pid).children()
        parent.kill()
    child.wait(10)


def test_a_process_that_cannot_start_is_a_lost_device(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DeviceLost, match="its process a process could not be started"):
        scene()


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_a_specification_is_the_same_in_another_process(provider: Provider) -> None:
    known = model(canaries=canaries_of([[1, 2], [3]], [[0.6, 0.8], [1, 0]]), graphs=("fused", "unfused"))
    target = structs.replace(target_of(), provider=provider)
    wish = EngineTable(streams=3, memory_bytes=1 << 30, memory_fraction=0.5, timeout_s=7)
    spec = structs.replace(EngineSpec.decide(known, target, wish, fixed((8, 4), (4, 8))), in_flight=4)
    found = decode_spec(encode_spec(spec))
    assert found.model.folder == ""
    found = structs.replace(found, model=structs.replace(found.model, folder=known.folder))
    assert structs.replace(found, model=known) == spec
    assert structs.replace(found.model, canaries=known.canaries) == known
    for mine, theirs in (
        (found.model.canaries.vectors, known.canaries.vectors),
        (found.model.canaries.tokens.ids, known.canaries.tokens.ids),
        (found.model.canaries.tokens.offsets, known.canaries.tokens.offsets),
    ):
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_only_the_cpu_computes_in_the_process_of_the_run() -> None:
    assert [provider.name for provider in PROVIDERS if not provider.ort.isolated] == ["cpu"]
