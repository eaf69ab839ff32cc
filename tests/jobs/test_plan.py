"""What `embedmill plan` tells: exact counts, a fair sample, and nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedmill.base.config import RunConfig
from embedmill.base.errors import InputError, ModelError
from embedmill.jobs.plan import plan_run
from embedmill.jobs.run import run
from tests.support.jobs import files_of, make_config, make_rows, write_jsonl


@pytest.fixture
def job(tmp_path: Path, tiny_model: Path) -> RunConfig:
    """Two files, a hundred rows of which ten are null, in ten shards of ten rows."""
    rows = [row | {"text": None} if number % 10 == 3 else row for number, row in enumerate(make_rows(100))]
    write_jsonl(tmp_path / "in" / "a.jsonl", rows[:50])
    write_jsonl(tmp_path / "in" / "b.jsonl", rows[50:])
    return make_config(tiny_model, tmp_path / "in", tmp_path / "out", shard={"rows": 10}, rows={"max_quarantined": 10})


def test_files_rows_shards_and_bytes_are_exact(tmp_path: Path, job: RunConfig) -> None:
    found = plan_run(job)
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert (found.files, found.rows, found.shards, found.input_bytes) == (2, 100, 10, size)


def test_the_sample_tells_what_would_be_set_aside(job: RunConfig) -> None:
    assert plan_run(job).rejected_share == pytest.approx(0.1)


def test_the_run_keeps_what_the_plan_said(tmp_path: Path, job: RunConfig) -> None:
    found = plan_run(job)
    totals = run(job, quiet=True).totals
    assert totals.shards == found.shards
    assert totals.vectors == found.passages
    assert totals.tokens / totals.vectors == pytest.approx(found.tokens_mean, rel=0.2)


def test_the_histogram_counts_each_passage_of_the_sample_once(job: RunConfig) -> None:
    found = plan_run(job)
    assert sum(count for _, count in found.histogram) == round(found.sampled_rows * (1 - found.rejected_share))
    assert found.histogram == sorted(found.histogram)
    assert found.histogram[-1][1] > 0


def test_long_texts_are_told_as_truncated(tmp_path: Path, tiny_model: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", [{"text": "stone " * 99}, {"text": "stone"}])
    found = plan_run(make_config(tiny_model, source, tmp_path / "out"))
    assert found.truncated_share == 0.5
    assert found.tokens_mean == (32 + 3) / 2


def test_time_and_speed_are_measured(job: RunConfig) -> None:
    found = plan_run(job)
    assert found.speed_tokens_s > 0
    assert found.seconds == pytest.approx(found.passages * found.tokens_mean / found.speed_tokens_s)
    assert found.memory_bytes > 0
    assert found.output_bytes > found.passages * 32 * 4


def test_nothing_is_written(tmp_path: Path, job: RunConfig) -> None:
    before = files_of(tmp_path)
    plan_run(job)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("rows", [[], [{"text": None}]], ids=["no rows", "only bad rows"])
def test_an_input_with_nothing_to_embed_takes_no_time(
    tmp_path: Path, tiny_model: Path, rows: list[dict[str, None]]
) -> None:
    found = plan_run(make_config(tiny_model, write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out"))
    assert (found.rows, found.passages, found.seconds, found.histogram) == (len(rows), 0, 0.0, [])


def test_the_errors_of_a_run_are_those_of_its_plan(tmp_path: Path, job: RunConfig) -> None:
    (tmp_path / "in" / "c.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"c\.parquet"):
        plan_run(job)


def test_a_model_that_is_not_there_is_told(tmp_path: Path, tiny_model: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(1))
    config = make_config(tiny_model, source, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="there is no model"):
        plan_run(RunConfig(model=str(tmp_path / "empty"), input=config.input))
