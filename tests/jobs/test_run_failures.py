"""What fails in the middle of a run ends it in good order, and the next run goes on from there."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import embedmill
from embedmill.base.config import RunConfig
from embedmill.base.configfile import parse_config
from embedmill.base.errors import DeviceError, InputError
from embedmill.jobs.plan import plan_run
from embedmill.jobs.run import run
from embedmill.report.progress import Progress
from embedmill.sink.folder import read_entries
from embedmill.sink.verify import verify
from tests.support.jobs import (
    make_config,
    make_rows,
    parts_of,
    write_jsonl,
)
from tests.support.tiny_model import HIDDEN


class TestFailures:
    """Shards of ten rows, one row per batch: batch 25 is of the third shard. Canaries run before them, by eights."""

    def job(self, tmp_path: Path, model: Path, name: str) -> RunConfig:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(60))
        return make_config(
            model, source, tmp_path / name, shard={"rows": 10}, engine={"budget_tokens": 1, "streams": 1}
        )

    def fail_at_batch(self, monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], Any]) -> None:
        batches = itertools.count(1)
        session_run = onnxruntime.InferenceSession.run

        def counted(session: Any, outputs: Any, inputs: dict[str, Any]) -> Any:
            if len(inputs["input_ids"]) > 1:
                return session_run(session, outputs, inputs)
            return action() if next(batches) == number else session_run(session, outputs, inputs)

        monkeypatch.setattr(onnxruntime.InferenceSession, "run", counted)

    def fail(self) -> Any:
        raise RuntimeError("the device is gone\nand more")

    def test_an_engine_error_is_a_device_error_in_one_line(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fail_at_batch(monkeypatch, 25, self.fail)
        with pytest.raises(DeviceError, match=r"the device is gone; a resume would fail alike: try another .*model$"):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)

    @pytest.mark.parametrize(("batch", "committed"), [(1, 0), (10, 0), (11, 1), (25, 2), (60, 5)])
    def test_the_shards_before_an_engine_error_are_committed(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, batch: int, committed: int
    ) -> None:
        self.fail_at_batch(monkeypatch, batch, self.fail)
        with pytest.raises(DeviceError):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert [entry.ordinal for entry in read_entries(tmp_path / "out")] == list(range(committed))
        assert verify(tmp_path / "out").problems == []

    def test_after_an_engine_error_a_new_run_ends_bit_by_bit_as_if_there_had_been_none(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(self.job(tmp_path, tiny_model, "undisturbed"), quiet=True)
        self.fail_at_batch(monkeypatch, 25, self.fail)
        with pytest.raises(DeviceError):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert parts_of(tmp_path / "out") == parts_of(tmp_path / "undisturbed")

    @pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
    def test_a_vector_that_cannot_be_one_is_an_engine_error(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, value: float
    ) -> None:
        self.fail_at_batch(monkeypatch, 25, lambda: [np.full((1, HIDDEN), value, np.float32)])
        with pytest.raises(DeviceError, match="not finite or not normalised"):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert [entry.ordinal for entry in read_entries(tmp_path / "out")] == [0, 1]

    def test_a_bad_row_under_a_fail_policy_keeps_the_shards_before_it(self, tmp_path: Path, tiny_model: Path) -> None:
        rows = [*make_rows(25), {"id": "bad", "text": None}, *make_rows(40)[26:]]
        source = write_jsonl(tmp_path / "a.jsonl", rows)
        config = make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10}, rows={"null_text": "fail"})
        with pytest.raises(InputError, match="row 26"):
            run(config, quiet=True)
        assert [entry.ordinal for entry in read_entries(tmp_path / "out")] == [0, 1]

    def test_an_interrupt_leaves_no_thread_running_and_can_be_resumed(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(self.job(tmp_path, tiny_model, "undisturbed"), quiet=True)
        advance, number = Progress.advance, itertools.count(1)

        def interrupt(progress: Progress, rows: float, tokens: int) -> None:
            if next(number) == 25:
                signal.raise_signal(signal.SIGINT)
            advance(progress, rows, tokens)

        monkeypatch.setattr(Progress, "advance", interrupt)
        before = set(threading.enumerate())
        # A shell starts background jobs with SIGINT ignored, and Python leaves that as it is.
        inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                embedmill.run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        finally:
            signal.signal(signal.SIGINT, inherited)
        assert set(threading.enumerate()) == before
        run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert parts_of(tmp_path / "out") == parts_of(tmp_path / "undisturbed")

    def test_no_thread_is_left_after_a_run_or_an_error(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = set(threading.enumerate())
        run(self.job(tmp_path, tiny_model, "one"), quiet=True)
        assert set(threading.enumerate()) == before
        self.fail_at_batch(monkeypatch, 25, self.fail)
        with pytest.raises(DeviceError):
            run(self.job(tmp_path, tiny_model, "other"), quiet=True)
        assert set(threading.enumerate()) == before


def test_a_missing_input_is_told_before_a_model_is_fetched(tmp_path: Path, empty_home: Path) -> None:
    config = parse_config(
        {"input": {"paths": [str(tmp_path / "no.jsonl")]}, "output": {"path": str(tmp_path / "out")}}, place="test"
    )
    for job in (run, plan_run):
        with pytest.raises(InputError, match=r"no\.jsonl"):
            job(config)
    assert not empty_home.exists()
