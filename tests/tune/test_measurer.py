"""Trials run in processes of their own; whatever happens there comes back as an observation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from embedmill.base.config import EngineTable, TextTable
from embedmill.base.records import Batch
from embedmill.engine.spec import EngineSpec
from embedmill.model.bundle import open_bundle
from embedmill.tune.search import Knobs, Mode, Trial
from embedmill.tune.trial import Measurer
from tests.support.jobs import tiny_bundle
from tests.support.works import CPU, target_of, tokens_of

TOKENS = tokens_of([[2, 7, 9, 30, 3], [2, 3], [2, 12, 80, 81, 6, 3]])


@pytest.fixture
def measurer(tiny_model: Path) -> Iterator[Measurer]:
    with Measurer(spec(tiny_model), TOKENS) as measurer:
        yield measurer


def spec(tiny_model: Path) -> EngineSpec:
    model = open_bundle(tiny_bundle(tiny_model)).model(TextTable())
    return EngineSpec.decide(model, target_of(CPU), EngineTable(streams=1, threads=1))


def trial(*, streams: int = 1, threads: int = 1, precision: str = "fp32") -> Trial:
    batches = (
        Batch(rows=np.array([0, 2]), size=2, sequence=6),
        Batch(rows=np.array([1]), size=1, sequence=2),
    )
    mode = Mode(precision=precision, streams=streams, threads=threads, floor_bytes=1)
    return Trial(
        number=0,
        knobs=Knobs(mode=mode, budget_tokens=16),
        batches=batches,
        repetition=1,
        useful_tokens=13,
        padded_tokens=14,
        predicted_peak_bytes=None,
    )


def test_a_trial_is_told_with_its_figures(measurer: Measurer) -> None:
    seen = measurer.observe(trial())
    assert seen.failure is None
    assert 0 < seen.seconds < 30
    assert seen.open_seconds > 0.1
    assert seen.peak_bytes is not None
    assert 0 < seen.peak_bytes < 1 << 30
    assert seen.ceiling_bytes is not None
    assert seen.ceiling_bytes > 1 << 20


def test_a_session_stays_open_until_another_is_wanted(measurer: Measurer) -> None:
    seconds = [measurer.observe(one).open_seconds for one in (trial(), trial(), trial(threads=2), trial(threads=2))]
    assert [second > 0 for second in seconds] == [True, False, True, False]


def test_an_error_is_told_in_its_own_words_and_the_next_trial_runs(measurer: Measurer) -> None:
    seen = measurer.observe(trial(precision="fp16"))
    assert seen.failure is not None
    assert "fp16" in seen.failure
    assert measurer.observe(trial()).failure is None


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
def test_a_crash_is_told_and_the_next_trial_has_a_new_process(
    measurer: Measurer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = sys.executable
    (tmp_path / "child").write_text("#!/bin/sh\nkill -SEGV $$\n")
    (tmp_path / "child").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "child"))
    assert measurer.observe(trial()).failure == "its process crashed with signal 11 (SIGSEGV)"
    monkeypatch.setattr(sys, "executable", python)
    assert measurer.observe(trial()).failure is None


@pytest.mark.skipif(os.name == "nt", reason="POSIX shell")
def test_a_hang_is_told_at_its_deadline(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "child").write_text("#!/bin/sh\nexec sleep 600\n")
    (tmp_path / "child").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "child"))
    with Measurer(spec(tiny_model), TOKENS, open_s=0.5) as measurer:
        assert measurer.observe(trial()).failure == "its process did not answer in 0.5 s"


def test_a_session_that_dies_later_is_told_and_opened_anew(measurer: Measurer) -> None:
    assert measurer.observe(trial()).failure is None
    for child in psutil.Process().children():
        child.kill()
    seen = measurer.observe(trial())
    assert seen.failure is not None
    # Windows ends processes with a code.
    assert seen.failure.startswith(("its process crashed", "its process ended with code"))
    assert measurer.observe(trial()).failure is None
