"""The far end by itself: what it lists, what it opens, the files that it asks for, and what takes it down."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.errors import DeviceError, DeviceLost, ModelError
from embedmill.base.records import Model, Packing, Work
from embedmill.batch.pack import pack
from embedmill.engine.catalogue.entry import Bridge, Plugin
from embedmill.engine.engine import Engine
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.client import HostClient
from embedmill.engine.runners.messages import Opened
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.runners.start import list_devices, runner_for
from embedmill.engine.spec import EngineSpec
from embedmill.model.bundle import open_bundle
from tests.support.jobs import tiny_bundle
from tests.support.works import CPU, PACKING, provider_of, target_of, tokens_of, with_ort

UNWATCHED = RunnerOptions(watched=False)
TOKENS = tokens_of([[2, 7, 9, 30, 3], [2, 3], [2, 12, 80, 81, 6, 3]])
WORK = Work(tokens=TOKENS, batches=pack(TOKENS.lengths, PACKING))


@pytest.fixture
def known(tiny_model: Path) -> Model:
    return open_bundle(tiny_bundle(tiny_model)).model(TextTable())


@pytest.fixture
def stranger() -> Iterator[HostClient]:
    """A host that knows of no folder, as on another machine."""
    with HostClient() as host:
        yield host


def spec_of(model: Model, **changes: object) -> EngineSpec:
    return structs.replace(
        EngineSpec.decide(model, target_of(CPU), EngineTable(streams=1, threads=1), PACKING), **changes
    )


def vectors_of(spec: EngineSpec, host: HostClient | None = None) -> np.ndarray:
    with Engine(ProcessRunner(spec, UNWATCHED, print, host=host)) as engine:
        [(_, vectors)] = engine.embed([(0, WORK)])
    return vectors


class TestFiles:
    def test_a_host_without_the_model_is_sent_its_files_and_keeps_them(
        self, known: Model, empty_home: Path, stranger: HostClient
    ) -> None:
        expected = vectors_of(spec_of(known))
        np.testing.assert_array_equal(vectors_of(spec_of(known), stranger), expected)
        [received] = (empty_home.parent / "received").iterdir()
        assert {path.name for path in received.iterdir()} == set(known.files)
        # The next time they are there, and nothing is sent: the near end has no such folder any more.
        with HostClient() as again:
            found = vectors_of(spec_of(structs.replace(known, folder="/nowhere")), again)
        np.testing.assert_array_equal(found, expected)

    def test_a_file_that_changed_on_the_way_is_refused(
        self, known: Model, empty_home: Path, tmp_path: Path, stranger: HostClient
    ) -> None:
        shutil.copytree(known.folder, tmp_path / "copy")
        with (tmp_path / "copy" / "weights.bin").open("r+b") as file:
            file.write(b"\xff")
        with pytest.raises(ModelError, match="were not received whole"):
            vectors_of(spec_of(structs.replace(known, folder=str(tmp_path / "copy"))), stranger)
        assert not list((empty_home.parent / "received").glob("[!.]*"))

    @pytest.mark.parametrize("name", ["../escape", "a/b", "..", ""])
    def test_a_name_that_leads_out_of_the_folder_is_refused(
        self, known: Model, empty_home: Path, stranger: HostClient, name: str
    ) -> None:
        hostile = structs.replace(known, files={**known.files, name: "0" * 64})
        with pytest.raises(ModelError, match="cannot be a model's file"):
            vectors_of(spec_of(hostile), stranger)

    def test_a_damaged_file_on_the_host_is_named(self, known: Model, tmp_path: Path) -> None:
        shutil.copytree(known.folder, tmp_path / "copy")
        (tmp_path / "copy" / "fused.onnx").write_bytes(b"damaged")
        with pytest.raises(ModelError, match=r"copy.fused\.onnx is missing or damaged"):
            vectors_of(spec_of(structs.replace(known, folder=str(tmp_path / "copy"))))


class TestDevices:
    @pytest.fixture
    def plugin(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """A provider's plugin library, whose module does as told when it is loaded."""

        def write(body: str) -> None:
            (tmp_path / "lunar_plugin.py").write_text(f"def get_library_path():\n{textwrap.indent(body, '    ')}\n")
            monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

        return write

    PROVIDER = provider_of(plugin=Plugin(module="lunar_plugin"))

    def test_the_host_lists_what_the_runtime_sees(self) -> None:
        assert [device.kind for device in list_devices(with_ort(CPU, isolated=True))] == ["cpu"]

    @pytest.mark.skipif(sys.platform == "win32", reason="signals")
    def test_a_library_that_crashes_while_it_is_loaded_does_not_take_this_process_along(
        self, plugin: Callable[[str], None]
    ) -> None:
        plugin("import signal\nsignal.raise_signal(signal.SIGSEGV)")
        with pytest.raises(
            DeviceLost, match=r"moon was lost 2 times .* its process crashed with signal 11 \(SIGSEGV\)"
        ):
            list_devices(self.PROVIDER, attempts=2)

    def test_a_library_that_cannot_be_loaded_is_a_sentence(self, plugin: Callable[[str], None]) -> None:
        plugin("return '/nowhere/libmoon.so'")
        with pytest.raises(DeviceError, match="cannot load lunar-plugin"):
            list_devices(self.PROVIDER)


class TestTimed:
    def test_passes_are_timed_with_their_memory(self, known: Model) -> None:
        options = RunnerOptions(watched=False, measured=True, eager=True)
        with ProcessRunner(spec_of(known), options, print) as runner:
            assert (runner.open(timeout_s=60) or 0) > 1 << 20
            once = runner.time(WORK, 0.0, timeout_s=60)
            more = runner.time(WORK, 0.2, timeout_s=60)
        assert (once.passes, once.whole) == (1, True)
        assert more.passes > 1
        assert more.seconds >= 0.2
        assert 0 < more.processor_s < 2 * more.seconds
        assert more.peak is not None
        assert (more.peak.peak_bytes or 0) > 0

    def test_a_request_that_takes_too_long_ends_the_process(self, known: Model) -> None:
        with (
            ProcessRunner(spec_of(known), UNWATCHED, print) as runner,
            pytest.raises(DeviceLost, match=r"its process did not answer in 0\.5 s"),
        ):
            runner.time(WORK, 600.0, timeout_s=0.5)

    def test_an_open_session_says_so(self, known: Model) -> None:
        with HostClient(known.folder) as host:
            reply = host.reply(host.open(spec_of(known), UNWATCHED), 60)
        assert isinstance(reply, Opened)
        assert reply.ceiling_bytes is None


def test_an_endpoint_without_a_runner_is_refused(known: Model) -> None:
    provider = structs.replace(provider_of(), endpoint=Bridge())
    spec = structs.replace(spec_of(known), target=target_of(provider), packing=Packing(budget_tokens=16))
    with pytest.raises(DeviceError, match="moon: no runner reaches a bridge yet"):
        runner_for(spec, notify=print)
