"""A provider is tried in a process of its own: whatever happens there comes back in words."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.records import Model
from embedmill.batch.tokens import take
from embedmill.engine.catalogue.entry import Provider
from embedmill.model.bundle import open_bundle
from embedmill.tune.figures import FigureRequest, Reference
from embedmill.tune.trial import Measurement, try_provider
from tests.support.jobs import tiny_bundle
from tests.support.works import CPU, ladder_of, tokens_of

CPU_ONLY = EngineTable(provider="cpu", precision="fp32", streams=1, threads=1)
TOKENS = tokens_of([[2, 7, 9, 30, 3], [2, 3], [2, 12, 80, 81, 6, 3]])


@pytest.fixture
def known(tiny_model: Path) -> Model:
    return open_bundle(tiny_bundle(tiny_model)).model(TextTable())


def tried(model: Model, wish: EngineTable = CPU_ONLY, *, real_only: bool = True, **options: Any) -> Measurement:
    """A trial of one pass."""
    options = {"deadline_s": 60, "timed_s": 0.0} | options
    return try_provider(model, wish, TOKENS, real_only=real_only, **options)


class TestTrial:
    """The real thing, in a process of its own."""

    def test_a_provider_that_works_is_told_with_its_figures(self, known: Model) -> None:
        reference = Reference()
        found = tried(known, timed_s=0.2, request=FigureRequest(reference=reference, is_reference=True))
        assert found.words == ""
        assert found.works
        assert (found.provider, found.precision) == ("cpu", "fp32")
        assert found.documents_per_s > 10
        assert found.tokens_per_s == pytest.approx(found.documents_per_s * 13 / 3)
        assert found.canary_cosine == pytest.approx(1, abs=1e-6)
        assert found.nodes_placed == found.nodes > 10
        assert found.seconds > 0.2
        assert found.figures is not None
        assert (found.figures.texts, found.figures.tokens, found.figures.peak_flops_per_s) == (3, 13, None)
        assert found.figures.padded_tokens >= 13
        assert (found.figures.memory_bytes or 0) > 0
        assert reference.vectors is not None
        assert reference.vectors.shape == (3, 32)

    def test_figures_hold_the_least_cosine_to_the_reference_and_the_peak(self, known: Model) -> None:
        reference = Reference()
        tried(known, request=FigureRequest(reference=reference, is_reference=True))
        assert reference.vectors is not None
        reference.vectors = reference.vectors * np.array([[1], [-1], [1]], np.float32)
        found = tried(known, request=FigureRequest(reference=reference, is_reference=False, sizes=(16, 64)))
        assert found.figures is not None
        assert found.figures.cosine == pytest.approx(-1, abs=1e-4)
        assert (found.figures.peak_flops_per_s or 0) > 1e6

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"provider": "abacus"}, "there is no provider 'abacus'"),
            ({"provider": "coreml" if sys.platform != "darwin" else "directml"}, ".* is not for this machine"),
            ({"device": "sun"}, "cpu has no device 'sun'"),
            ({"precision": "fp16"}, "cpu does not compute in fp16"),
        ],
        ids=str,
    )
    def test_a_typed_error_becomes_its_words(self, known: Model, options: dict[str, Any], words: str) -> None:
        found = tried(known, structs.replace(CPU_ONLY, **options))
        assert re.match(words, found.words)
        assert not found.works
        assert found.documents_per_s == 0
        assert found.provider == options.get("provider", "cpu")

    def test_files_of_the_model_that_changed_become_words(self, known: Model) -> None:
        files = known.files | {"fused.onnx": "0" * 64}
        assert "fused.onnx is missing or damaged" in tried(structs.replace(known, files=files)).words

    def test_an_emulated_device_is_not_measured_where_only_real_ones_count(self, known: Model) -> None:
        found = tried(known, providers=emulated(CPU))
        assert re.match(r"this machine only emulates it \(.+\)", found.words)

    def test_an_emulated_device_runs_a_few_short_texts(self, known: Model) -> None:
        providers = emulated(structs.replace(CPU, shapes=ladder_of(8, 16, budget_tokens=4096, most_rows=64)))
        request = FigureRequest(reference=Reference(), is_reference=True)
        found = tried(known, real_only=False, request=request, providers=providers)
        assert found.words == ""
        assert found.devices == [found.device]
        assert found.figures is not None
        assert found.figures.texts == 2
        # The two shortest in one batch of 64 tokens at most.
        assert found.figures.padded_tokens <= 64


def emulated(provider: Provider) -> list[Provider]:
    """`cpu` as a provider for GPUs, which the processor of this machine emulates."""
    return [structs.replace(provider, kinds=("gpu",))]


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
class TestEnds:
    """A child that ends in another way than with a result."""

    @pytest.fixture
    def child(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
        """A shell script in the place of Python."""

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
            ("exit 0", "its process ended without an answer"),
            (r"printf '\377\376' >&2; exit 1", "its process ended with code 1: \ufffd\ufffd"),
        ],
        ids=["segv", "abort", "code", "code and words", "no result", "no UTF-8"],
    )  # fmt: skip
    def test_it_is_told_how_it_ended(self, known: Model, child: Callable[[str], None], script: str, words: str) -> None:
        child(script)
        found = tried(known)
        assert (found.words, found.works) == (words, False)
        assert (found.provider, found.precision) == ("cpu", "fp32")

    def test_a_hang_is_ended_at_the_deadline(self, known: Model, child: Callable[[str], None], tmp_path: Path) -> None:
        child(f"echo $$ > {tmp_path}/pid; exec sleep 60")
        began = time.monotonic()
        assert tried(known, deadline_s=0.5).words == "its process did not answer in 0.5 s"
        assert time.monotonic() - began < 5
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_no_file_is_left_of_it(
        self, known: Model, child: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "temp").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
        child("kill -SEGV $$")
        tried(known)
        assert list((tmp_path / "temp").iterdir()) == []


def test_some_of_the_texts_are_taken_whole_and_in_order() -> None:
    found = take(TOKENS, [2, 0])
    assert found.ids.tolist() == [2, 12, 80, 81, 6, 3, 2, 7, 9, 30, 3]
    assert found.offsets.tolist() == [0, 6, 11]
    assert found.truncated.tolist() == [False, False]
    assert take(TOKENS, []).lengths.tolist() == []
