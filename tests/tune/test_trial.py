"""A provider is tried in a process of its own: whatever happens there comes back in words."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.records import Tokens
from embedmill.batch.tokens import take
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.devices import Device
from embedmill.tune import trial as trial_module
from embedmill.tune.figures import FigureRequest
from embedmill.tune.trial import Measurement, Request, run_trial, try_provider
from tests.support.fake_devices import device_of
from tests.support.jobs import tiny_bundle
from tests.support.works import CPU, ladder_of, tokens_of

CPU_ONLY = EngineTable(provider="cpu", precision="fp32", streams=1, threads=1)
TOKENS = tokens_of([[2, 7, 9, 30, 3], [2, 3], [2, 12, 80, 81, 6, 3]])


@pytest.fixture
def bundle(tiny_model: Path) -> Path:
    return tiny_bundle(tiny_model)


def tried(bundle: Path, engine: EngineTable = CPU_ONLY, *, deadline_s: float = 60, **options: Any) -> Measurement:
    return try_provider(bundle, TextTable(), engine, TOKENS, real_only=True, deadline_s=deadline_s, **options)


class TestChild:
    """The real thing, in a process of its own."""

    def test_a_provider_that_works_is_told_with_its_figures(self, bundle: Path, tmp_path: Path) -> None:
        wanted = FigureRequest(folder=str(tmp_path), reference=True, peak=False)
        found = tried(bundle, wanted=wanted)
        assert found.words == ""
        assert found.works
        assert (found.provider, found.precision) == ("cpu", "fp32")
        assert found.documents_per_s > 10
        assert found.tokens_per_s == pytest.approx(found.documents_per_s * 13 / 3)
        assert found.canary_cosine == pytest.approx(1, abs=1e-6)
        assert found.nodes_placed == found.nodes > 10
        assert found.seconds > 1.5
        assert found.figures is not None
        assert (found.figures.texts, found.figures.tokens, found.figures.peak_flops_per_s) == (3, 13, None)
        assert found.figures.padded_tokens >= 13
        assert (found.figures.memory_bytes or 0) > 0
        assert np.load(wanted.vectors, allow_pickle=False).shape == (3, 32)

    def test_a_provider_that_is_not_here_is_told_in_its_own_words(self, bundle: Path) -> None:
        found = tried(bundle, structs.replace(CPU_ONLY, provider="coreml" if sys.platform != "darwin" else "directml"))
        assert not found.works
        assert "is not for this machine" in found.words
        assert found.documents_per_s == 0


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
class TestEnds:
    """A child that ends in another way than with a result."""

    @pytest.fixture
    def child(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A shell script in the place of Python; it has the request as $4 and the result as $5."""

        def write(script: str) -> None:
            (tmp_path / "child").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "child").chmod(0o755)
            monkeypatch.setattr(sys, "executable", str(tmp_path / "child"))

        return write

    @pytest.mark.parametrize(
        ("script", "words"),
        [
            ("kill -SEGV $$", "its process crashed with signal 11 (SIGSEGV)"),
            ("echo noise >&2; echo 'driver: lost' >&2; kill -ABRT $$",
             "its process crashed with signal 6 (SIGABRT): driver: lost"),
            ("exit 3", "its process ended with code 3"),
            ("echo 'ImportError: no libcuda.so.1' >&2; exit 1",
             "its process ended with code 1: ImportError: no libcuda.so.1"),
            ("exit 0", "its process ended without a result"),
            (r"printf '\377\376' >&2; exit 1", "its process ended with code 1: \ufffd\ufffd"),
        ],
        ids=["segv", "abort", "code", "code and words", "no result", "no UTF-8"],
    )  # fmt: skip
    def test_it_is_told_how_it_ended(self, bundle: Path, child: Any, script: str, words: str) -> None:
        child(script)
        found = tried(bundle)
        assert (found.words, found.works) == (words, False)
        assert (found.provider, found.precision) == ("cpu", "fp32")

    def test_a_hang_is_ended_at_the_deadline(self, bundle: Path, child: Any, tmp_path: Path) -> None:
        child(f"echo $$ > {tmp_path}/pid; exec sleep 60")
        began = time.monotonic()
        assert tried(bundle, deadline_s=0.5).words == "its process did not answer in 0.5 s"
        assert time.monotonic() - began < 5
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_nothing_is_left_of_it(
        self, bundle: Path, child: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "temp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
        child(f'cp "$4" {tmp_path}/request; kill -SEGV $$')
        tried(bundle)
        assert (tmp_path / "request").read_bytes().startswith(b"{")
        assert list((tmp_path / "temp").iterdir()) == []


class TestInside:
    """What the child does, in this process."""

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trial_module, "_TIMED_S", 0.0)

    def run(self, folder: Path, bundle: Path, *, real_only: bool = True, **options: Any) -> Measurement:
        tokens: Tokens = options.pop("tokens", TOKENS)
        path = folder / "tokens.npz"
        np.savez(path, ids=tokens.ids, offsets=tokens.offsets, truncated=tokens.truncated)
        engine = structs.replace(CPU_ONLY, **options)
        request = Request(bundle=str(bundle), text=TextTable(), engine=engine, tokens=str(path), real_only=real_only)
        return run_trial(request)

    def emulating(self, monkeypatch: pytest.MonkeyPatch, provider: Provider) -> Device:
        """`provider` is the CPU, and the only device it sees emulates another."""
        device = device_of(kind="cpu", name="Core", emulated=True)
        monkeypatch.setattr("embedmill.engine.catalogue.find_provider", lambda _: provider)
        monkeypatch.setattr("embedmill.engine.target.devices_of", lambda _: [device])
        monkeypatch.setattr(trial_module, "devices_of", lambda _: [device])
        return device

    def test_every_device_of_the_provider_is_told(self, tmp_path: Path, bundle: Path) -> None:
        found = self.run(tmp_path, bundle)
        assert found.works
        assert found.device in [*found.devices, None]
        assert found.figures is None

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"provider": "abacus"}, "there is no provider 'abacus'"),
            ({"device": "sun"}, "cpu has no device 'sun'"),
            ({"precision": "fp16"}, "cpu does not compute in fp16"),
        ],
        ids=str,
    )
    def test_a_typed_error_becomes_its_words(
        self, tmp_path: Path, bundle: Path, options: dict[str, Any], words: str
    ) -> None:
        found = self.run(tmp_path, bundle, **options)
        assert found.words.startswith(words)
        assert found.provider == options.get("provider", "cpu")

    def test_a_damaged_bundle_becomes_its_words(self, tmp_path: Path, bundle: Path) -> None:
        found = self.run(tmp_path, tmp_path)
        assert "holds no model bundle" in found.words

    def test_an_emulated_device_is_not_measured_where_only_real_ones_count(
        self, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.emulating(monkeypatch, CPU)
        assert self.run(tmp_path, bundle).words == "this machine only emulates it (Core)"

    def test_an_emulated_device_runs_a_few_short_texts(
        self, tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ladder = structs.replace(CPU, shapes=ladder_of(8, 16, budget_tokens=4096, most_rows=64))
        device = self.emulating(monkeypatch, ladder)
        sizes: list[int] = []
        timed = trial_module._time

        def watched(engine: Any, work: Any) -> tuple[int, float]:
            sizes.extend(batch.size * batch.sequence for batch in work.batches)
            assert len(work.tokens.truncated) == 2
            return timed(engine, work)

        monkeypatch.setattr(trial_module, "_time", watched)
        found = self.run(tmp_path, bundle, real_only=False)
        assert found.words == ""
        assert found.device == device
        assert found.devices == [device]
        assert max(sizes) <= 64


def test_some_of_the_texts_are_taken_whole_and_in_order() -> None:
    found = take(TOKENS, [2, 0])
    assert found.ids.tolist() == [2, 12, 80, 81, 6, 3, 2, 7, 9, 30, 3]
    assert found.offsets.tolist() == [0, 6, 11]
    assert found.truncated.tolist() == [False, False]
    assert take(TOKENS, []).lengths.tolist() == []
