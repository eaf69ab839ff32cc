"""Real sessions in their own process, which is killed and stopped while a run computes: nothing of the run is lost.

What a device does to that process (lost, crashed, hung, out of memory, NaN) is scripted in tests/engine/test_apart.py.
"""

from __future__ import annotations

import itertools
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("signals", allow_module_level=True)

from msgspec import structs

from embedmill.base.errors import DeviceLost, ModelError
from embedmill.engine.catalogue.entry import Provider
from embedmill.jobs.run import run
from embedmill.model.bundle import Bundle, check_files
from embedmill.report.run import RunResult
from embedmill.sink.verify import verify
from tests.base.process.test_worker import children
from tests.conftest import Tell
from tests.support.jobs import make_config, make_rows, parts_of, tiny_bundle, write_jsonl
from tests.support.works import CPU, with_ort

APART = with_ort(CPU, isolated=True)
# One row per batch, so that there is time for faults.
ROWS, KILLS, STOPS = 600, 20, 4
# Longer than such a process lives.
SEED, LIFE_S = 20261122, 1.2

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


@pytest.fixture
def undisturbed(place: Path, tiny_model: Path) -> dict[str, str]:
    """What a run in one process writes: sha256 by file."""
    return embedded(place / "device-alone", tiny_model, CPU)[1]


def embedded(folder: Path, model: Path, provider: Provider, **engine: object) -> tuple[RunResult, dict[str, str]]:
    """A run of the job, and its files."""
    folder.mkdir(exist_ok=True)
    source = write_jsonl(folder / "a.jsonl", make_rows(ROWS))
    asked = {"provider": "cpu", "budget_tokens": 1, "streams": 2, **engine}
    config = make_config(model, source, folder / "out", shard={"rows": 100}, engine=asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedmill.tune.provider.find_provider", lambda *_: provider)
        result = run(config, quiet=True)
    assert children() == []
    assert verify(folder / "out").problems == []
    return result, parts_of(folder / "out")


def opens_sessions(child: psutil.Process) -> bool:
    """Whether a process is given a folder of models; one that lists devices is not."""
    return Path(child.cmdline()[-1]).is_dir()


@contextmanager
def sent(signum: int, *, after_s: float, times: int = 1, of_listing: bool = False) -> Iterator[None]:
    """The process of sessions gets a signal a while after it began; so do those that follow, up to so many.

    `of_listing`: the process that lists devices does too.
    """
    over = threading.Event()

    def send() -> None:
        met: set[int] = set()
        while len(met) < times and not over.wait(0.01):
            # One that ends by itself meanwhile is none to send to.
            with suppress(psutil.NoSuchProcess, IndexError):
                for child in children():
                    if child.pid in met or not (of_listing or opens_sessions(child)):
                        continue
                    if not over.wait(after_s):
                        met.add(child.pid)
                        child.send_signal(signum)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.crash
@pytest.mark.parametrize(
    ("signum", "times", "timeout_s", "why"),
    [
        (signal.SIGKILL, KILLS, 300, "its process crashed with signal 9 (SIGKILL)"),
        (signal.SIGSTOP, STOPS, 4, "it has not ended a batch for 4 s, which engine.timeout_s allows"),
    ],
    ids=["killed", "stopped"],
)
def test_a_process_of_sessions_that_ends_or_hangs_is_followed_by_another(
    place: Path,
    tiny_model: Path,
    undisturbed: dict[str, str],
    tell: Tell,
    signum: int,
    times: int,
    timeout_s: float,
    why: str,
) -> None:
    """At random instants from its start to its end; where that came too late, again and earlier."""
    draw, counts = random.Random(SEED), Counter[str]()
    for number in range(times):
        instant = (number + draw.random()) / times * LIFE_S
        for attempt in itertools.count():
            with sent(signum, after_s=instant):
                folder = place / f"{signum}-{number}-{attempt}"
                result, parts = embedded(folder, tiny_model, APART, timeout_s=timeout_s)
            assert parts == undisturbed, f"seed {SEED}, number {number}, after {instant:.2f} s"
            losses = result.engine.losses if result.engine is not None else []
            if losses:
                break
            counts["at its end already, and sent again earlier"] += 1
            instant *= 0.7
        assert losses == [why]
        counts["lost in the middle of a run, and followed by another"] += 1
    tell(f"{times} processes of sessions get {signal.Signals(signum).name}, seed {SEED}", counts)


@pytest.mark.crash
def test_a_process_that_is_killed_while_it_lists_devices_is_followed_by_another(
    place: Path, tiny_model: Path, undisturbed: dict[str, str]
) -> None:
    with sent(signal.SIGKILL, after_s=0.2, times=2, of_listing=True):
        result, parts = embedded(place / "device-listing", tiny_model, APART)
    assert parts == undisturbed
    assert result.engine is not None


@pytest.mark.crash
def test_a_device_that_stays_lost_ends_the_run_which_resumes_when_it_is_back(
    place: Path, tiny_model: Path, undisturbed: dict[str, str]
) -> None:
    folder = place / "device-gone"
    with (
        sent(signal.SIGKILL, after_s=0.05, times=99, of_listing=True),
        pytest.raises(DeviceLost, match="lost 4 times in a row"),
    ):
        embedded(folder, tiny_model, APART)
    assert children() == []
    assert embedded(folder, tiny_model, APART)[1] == undisturbed


def test_sessions_in_another_process_give_the_very_same_files(tmp_path: Path, tiny_model: Path) -> None:
    here, alone = embedded(tmp_path / "here", tiny_model, CPU)
    there, apart = embedded(tmp_path / "there", tiny_model, APART)
    assert apart == alone
    assert here.engine is not None
    assert there.engine is not None
    assert there.engine.memory is not None
    assert there.stages.compute > 0
    assert [structs.replace(session, seconds=0) for session in there.engine.sessions] == [
        structs.replace(session, seconds=0) for session in here.engine.sessions
    ]


def test_a_model_that_changed_since_the_run_began_is_not_loaded(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run compares its files, and so does each process before it loads one."""
    model = tmp_path / "tiny"
    shutil.copytree(tiny_model, model)
    bundle = tiny_bundle(model)

    def then_changed(checked: Bundle) -> None:
        check_files(checked)
        with (bundle / "tokenizer.json").open("ab") as file:
            file.write(b" ")

    monkeypatch.setattr("embedmill.jobs.job.check_files", then_changed)
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing or damaged"):
        embedded(tmp_path / "job", model, APART)
    assert children() == []
