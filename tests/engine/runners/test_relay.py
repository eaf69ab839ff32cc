"""A host behind a relay like that of WSL interop, and far ends that are not of this version."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec import structs

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import DeviceError, DeviceLost, ModelError
from embedmill.base.process.child import command_of
from embedmill.base.process.worker import Worker
from embedmill.base.records import Packing, Work
from embedmill.batch.pack import pack
from embedmill.engine.engine import Engine
from embedmill.engine.runners import messages
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.client import HOST, HostClient
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.runners.start import runner_for
from embedmill.engine.spec import EngineSpec
from embedmill.model.bundle import open_bundle
from tests.support import relay
from tests.support.jobs import tiny_bundle
from tests.support.works import CPU, target_of, tokens_of

RELAY = [sys.executable, relay.__file__]
PACKING = Packing(budget_tokens=2048)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a relay of pipes, as Linux has them")


def relayed(*folders: str, module: str = HOST) -> Worker:
    return Worker([*RELAY, *command_of(module, *folders)])


@pytest.fixture
def spec(tiny_model: Path) -> EngineSpec:
    known = open_bundle(tiny_bundle(tiny_model)).model(TextTable())
    return EngineSpec.decide(known, target_of(CPU), EngineTable(streams=2, threads=1), PACKING)


@pytest.fixture
def work() -> Work:
    chance = np.random.default_rng(0)
    tokens = tokens_of([[2, *chance.integers(5, 90, length).tolist(), 3] for length in chance.integers(1, 60, 3000)])
    return Work(tokens=tokens, batches=pack(tokens.lengths, PACKING))


def test_a_host_behind_a_relay_computes_the_same_with_many_batches_at_once(spec: EngineSpec, work: Work) -> None:
    found = []
    for runner in (
        runner_for(spec, RunnerOptions(watched=False), notify=print),
        ProcessRunner(structs.replace(spec, in_flight=8), RunnerOptions(watched=False), print, start=relayed),
    ):
        with Engine(runner) as engine:
            [(_, vectors)] = engine.embed([(0, work)])
            found.append(vectors)
    np.testing.assert_array_equal(found[0], found[1])


def test_a_host_behind_a_relay_is_sent_its_files_and_asked_for_facts_meanwhile(
    spec: EngineSpec, work: Work, empty_home: Path
) -> None:
    with HostClient(start=relayed) as host, Engine(ProcessRunner(spec, RunnerOptions(), print, host=host)) as engine:
        for _, vectors in engine.embed((number, work) for number in range(3)):
            assert vectors.shape == (3000, spec.model.dim)
            assert engine.facts().sessions
    assert [path.name for path in (empty_home.parent / "received").iterdir()]


def test_bytes_that_terminals_and_shells_interpret_pass_a_relay_in_both_directions() -> None:
    sent, heard = bytes(range(256)) * (1 << 13) + b"\x1a\r\n\0\n\r", list[bytes]()
    with Worker([*RELAY, *command_of("tests.engine.runners.test_relay")]) as worker:
        worker.listen(lambda frame: heard.append(frame or b"end"))
        worker.send(sent)
        end_s = time.monotonic() + 60
        while not heard and time.monotonic() < end_s:
            time.sleep(0.01)
    assert heard[0] == sent[::-1]


def main() -> None:
    """A far end that turns each frame around."""
    from embedmill.base.process.worker import ParentPipe

    with ParentPipe() as parent:
        for frame in parent.questions():
            parent.say(frame[::-1])


def test_a_relay_that_is_killed_is_a_lost_device_and_the_work_goes_on(spec: EngineSpec, work: Work) -> None:
    said, started = list[str](), list[Worker]()

    def start(*folders: str) -> Worker:
        started.append(relayed(*folders))
        return started[-1]

    with Engine(ProcessRunner(spec, RunnerOptions(watched=False), said.append, start=start)) as engine:
        for number, _ in engine.embed((number, work) for number in range(4)):
            if number == 0:
                started[0].end()
    assert len(started) == 2
    assert "was lost" in said[0]


def encoded(message: messages.Reply) -> bytes:
    frame = msgspec.msgpack.encode(message)
    return len(frame).to_bytes(4, "little") + frame


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (encoded(messages.Hello(-1, messages.PROTOCOL + 1)), DeviceError, "speaks protocol 2, and this embedmill 1"),
        (encoded(messages.Devices(0, [])), DeviceError, "speaks protocol another, and this embedmill 1"),
        (b"\3\0\0\0abc", DeviceError, "install both in the same version"),
        (b"Microsoft Windows [Version 10.0]\r\n", DeviceLost, "its process ended without an answer"),
        (b"", DeviceLost, "its process ended without an answer"),
    ],
    ids=["later", "no greeting", "no message", "a banner", "nothing"],
)
def test_a_far_end_of_another_kind_is_told_as_one(said: bytes, error: type[DeviceError], words: str) -> None:
    program = f"import sys; sys.stdout.buffer.write({said!r}); sys.stdout.flush(); sys.stdin.buffer.read()"
    program = program if error is DeviceError else program.rpartition(";")[0]
    with (
        HostClient(start=lambda *_: Worker([sys.executable, "-c", program])) as host,
        pytest.raises(error, match=words),
    ):
        host.devices(CPU, timeout_s=60)


def test_a_model_that_cannot_be_read_for_the_far_end_is_told(spec: EngineSpec, empty_home: Path) -> None:
    lost = structs.replace(spec, model=structs.replace(spec.model, folder="/nowhere"))
    with HostClient(start=relayed) as host, pytest.raises(ModelError, match=r"nowhere.* cannot be read"):
        host.reply(host.open(lost, RunnerOptions()), 60)
