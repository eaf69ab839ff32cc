"""What a provider compiled is found again, for just the same graph, device and versions; half of it never."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest
from msgspec import structs

from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue import PROVIDERS, find_provider
from embedmill.engine.sessions.compiled import ContextCache
from embedmill.engine.sessions.options import SessionPlan
from embedmill.engine.sessions.session import Session
from tests.support.fake_devices import device_of
from tests.support.fake_runtime import Runtime, runtime
from tests.support.plans import plan_of
from tests.support.works import provider_of

__all__ = ["runtime"]

[QNN] = [provider for provider in PROVIDERS if provider.name == "qnn"]
PLAN = plan_of(Path("bundle/unfused.onnx"), options={"mode": "burst"}, free={"batch": 4, "sequence": 32})


@pytest.fixture
def contexts(tmp_path: Path) -> ContextCache:
    return ContextCache(tmp_path / "contexts")


def keep(contexts: ContextCache, key: str, content: bytes = b"compiled") -> Path:
    with contexts.new(key) as file:
        file.write_bytes(content)
        file.with_suffix(".bin").write_bytes(content)
    found = contexts.find(key)
    assert found is not None
    return found


class TestKey:
    def key(self, contexts: ContextCache, plan: SessionPlan = PLAN, device: Any = None, provider: str = "qnn") -> str:
        return contexts.key(find_provider(provider), structs.asdict(plan), device)

    def test_the_same_has_the_same_key(self, contexts: ContextCache, tmp_path: Path) -> None:
        other = ContextCache(tmp_path / "elsewhere")
        assert self.key(contexts, device=device_of()) == self.key(other, device=device_of())

    @pytest.mark.parametrize(
        "change",
        [
            {"model": "1" * 64},
            {"graph": "bundle/unfused-fp16.onnx"},
            {"options": {"mode": "balanced"}},
            {"session": {"x": "1"}},
            {"free": {"batch": 8, "sequence": 32}},
            {"free": {"batch": 4, "sequence": 64}},
            {"optimise": True},
        ],
        ids=str,
    )
    def test_it_changes_with_the_plan(self, contexts: ContextCache, change: dict[str, Any]) -> None:
        assert self.key(contexts, structs.replace(PLAN, **change)) != self.key(contexts)

    def test_it_changes_with_the_device(self, contexts: ContextCache) -> None:
        keys = {
            self.key(contexts),
            self.key(contexts, device=device_of()),
            self.key(contexts, device=device_of(name="Adreno")),
            self.key(contexts, device=device_of(driver="2")),
        }
        assert len(keys) == 4

    def test_it_changes_with_the_provider(self, contexts: ContextCache) -> None:
        assert self.key(contexts) != self.key(contexts, provider="openvino")

    @pytest.mark.parametrize("package", ["onnxruntime", "onnxruntime-qnn"])
    def test_it_changes_with_the_versions_that_compile(
        self, contexts: ContextCache, monkeypatch: pytest.MonkeyPatch, package: str
    ) -> None:
        versions = {"onnxruntime": "1.30.0", "onnxruntime-qnn": "2.7.0"}
        monkeypatch.setattr(metadata, "version", versions.__getitem__)
        before = self.key(contexts)
        versions[package] = "9.9.9"
        assert self.key(contexts) != before

    def test_it_does_not_need_every_package(self, contexts: ContextCache, monkeypatch: pytest.MonkeyPatch) -> None:
        def none(package: str) -> str:
            raise metadata.PackageNotFoundError(package)

        monkeypatch.setattr(metadata, "version", none)
        assert self.key(contexts)


class TestFolder:
    def test_what_was_kept_is_found_with_all_its_files(self, contexts: ContextCache) -> None:
        found = keep(contexts, "one")
        assert sorted(path.name for path in found.parent.iterdir()) == ["context.bin", "context.onnx"]
        assert contexts.find("two") is None

    def test_what_was_discarded_is_gone(self, contexts: ContextCache) -> None:
        keep(contexts, "one")
        contexts.discard("one")
        assert contexts.find("one") is None
        contexts.discard("one")

    def test_a_block_that_fails_keeps_nothing(self, contexts: ContextCache, tmp_path: Path) -> None:
        def fail() -> None:
            with contexts.new("one") as file:
                file.write_bytes(b"half")
                raise RuntimeError("driver")

        with pytest.raises(RuntimeError, match="driver"):
            fail()
        assert contexts.find("one") is None
        assert list((tmp_path / "contexts").iterdir()) == []

    def test_a_provider_that_writes_nothing_keeps_nothing(self, contexts: ContextCache, tmp_path: Path) -> None:
        with contexts.new("one"):
            pass
        assert list((tmp_path / "contexts").iterdir()) == []

    def test_the_context_of_a_faster_process_is_left_alone(self, contexts: ContextCache) -> None:
        with contexts.new("one") as file:
            file.write_bytes(b"slow")
            keep(contexts, "one", b"fast")
        found = contexts.find("one")
        assert found is not None
        assert found.read_bytes() == b"fast"

    @pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
    def test_a_kill_half_way_keeps_nothing(self, contexts: ContextCache, tmp_path: Path) -> None:
        program = (
            "import os, sys; from pathlib import Path; from embedmill.engine.sessions.compiled import ContextCache\n"
            "from embedmill.base.files import local\n"
            "with ContextCache(Path(sys.argv[1])).new('one') as file:\n"
            "    file.write_bytes(b'half'); os.kill(os.getpid(), 9)"
        )
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "contexts")], check=False)
        assert done.returncode == -9
        assert contexts.find("one") is None
        assert keep(contexts, "one").read_bytes() == b"compiled"


class TestSession:
    """A session of a provider that compiles, on a runtime that does as it is told."""

    PROVIDER = provider_of(compiled=True)
    WRITES = ("ep.context_enable", "ep.context_file_path")

    @pytest.fixture(autouse=True)
    def compiling(self, runtime: Runtime) -> None:
        """The provider writes a context if asked for one."""

        def compile_it(graph: Path, options: ort.SessionOptions) -> None:
            enabled = entry(options, "ep.context_enable")
            assert (graph.name == "context.onnx") != (enabled == "1")
            if enabled:
                Path(entry(options, "ep.context_file_path")).write_bytes(b"compiled")

        runtime.refuse = compile_it

    def open(self, contexts: ContextCache | None, plan: SessionPlan = PLAN) -> Session:
        return Session(plan, self.PROVIDER, pad_id=0, contexts=contexts)

    def test_it_compiles_once_and_loads_what_it_kept(self, runtime: Runtime, contexts: ContextCache) -> None:
        for _ in range(3):
            self.open(contexts)
        assert [graph.name for graph, *_ in runtime.opened] == ["unfused.onnx", "context.onnx", "context.onnx"]

    def test_another_shape_is_compiled_for_itself(self, runtime: Runtime, contexts: ContextCache) -> None:
        self.open(contexts)
        self.open(contexts, structs.replace(PLAN, free={"batch": 2, "sequence": 64}))
        assert [graph.name for graph, *_ in runtime.opened] == ["unfused.onnx", "unfused.onnx"]

    def test_a_context_that_does_not_load_is_compiled_again(
        self, runtime: Runtime, contexts: ContextCache, tmp_path: Path
    ) -> None:
        self.open(contexts)
        compile_it = runtime.refuse

        def refuse_broken(graph: Path, options: ort.SessionOptions) -> None:
            if graph.name == "context.onnx" and graph.read_bytes() == b"broken":
                raise RuntimeError("Code: 5000 the context was made by another driver")
            compile_it(graph, options)

        [kept] = (tmp_path / "contexts").rglob("context.onnx")
        kept.write_bytes(b"broken")
        runtime.refuse = refuse_broken
        self.open(contexts)
        self.open(contexts)
        names = [graph.name for graph, *_ in runtime.opened]
        assert names == ["unfused.onnx", "context.onnx", "unfused.onnx", "context.onnx"]

    def test_a_graph_that_does_not_compile_keeps_nothing(
        self, runtime: Runtime, contexts: ContextCache, tmp_path: Path
    ) -> None:
        def refuse(graph: Path, options: ort.SessionOptions) -> None:
            Path(entry(options, "ep.context_file_path")).write_bytes(b"half")
            raise RuntimeError("no such operator")

        runtime.refuse = refuse
        with pytest.raises(DeviceError, match="no such operator"):
            self.open(contexts)
        assert list((tmp_path / "contexts").iterdir()) == []

    def test_without_a_folder_for_them_nothing_is_kept(self, runtime: Runtime) -> None:
        runtime.refuse = lambda graph, options: None
        self.open(None)
        assert runtime.entries(*self.WRITES) == [("", "")]


def entry(options: ort.SessionOptions, key: str) -> str:
    """A session config entry, or nothing."""
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:
        return ""
