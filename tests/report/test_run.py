"""Results in words say what was done, where it is and what was left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedmill.base.environment import environment, version
from embedmill.base.records import Stages, Totals
from embedmill.base.results import Change, EngineFacts, MemoryFacts
from embedmill.engine.machine.machine import peak_memory_bytes
from embedmill.jobs.models import add_model
from embedmill.report.models import model_summary, models_summary
from embedmill.report.plan import PlanResult, plan_summary
from embedmill.report.run import RunResult, run_summary
from embedmill.report.verify import verify_summary
from embedmill.sink.verify import Verified
from tests.support.tiny_model import write_tiny_model

TOTALS = Totals(
    shards=2,
    rows_read=100,
    rows_written=90,
    rows_quarantined=7,
    rows_skipped=3,
    vectors=90,
    tokens=10_000,
    padded_tokens=10_100,
    truncated=9,
    bytes=1 << 20,
)
RESULT = RunResult(
    output="out",
    model="tiny",
    identity="0" * 64,
    totals=TOTALS,
    rows_before=0,
    engine=EngineFacts(
        provider="cpu", device="Rare CPU", precision="fp32", streams=2, threads=1, sessions=[], chosen="asked for"
    ),
    stages=Stages(wall=4.0, prepare=1.0, compute=6.0, write=1.0, streams=2),
)
MEMORY = MemoryFacts(
    source="RAM",
    scope="process",
    ceiling_bytes=8 << 30,
    reserve_bytes=1 << 30,
    most_used_bytes=1 << 30,
    least_free_bytes=1 << 29,
    samples=9,
    unknown=0,
    reasons={},
    changes=[],
    series=[],
)
PREVIEW = PlanResult(
    files=3,
    input_bytes=1 << 20,
    rows=1000,
    shards=2,
    sampled_rows=100,
    rejected_share=0.01,
    passages=990,
    tokens_mean=50.0,
    truncated_share=0.02,
    padding_share=0.01,
    histogram=[(16, 10), (32, 40), (64, 20)],
    provider="cpu",
    streams=2,
    speed_tokens_s=10_000.0,
    seconds=83.0,
    memory_bytes=300 << 20,
    output_bytes=2 << 20,
)


def test_a_run_tells_what_it_did_and_where_it_is() -> None:
    words = run_summary(RESULT)
    assert "embedded 100 rows in 4.0s (25.0 rows/s)" in words
    assert "tiny, cpu fp32 on Rare CPU, 2 x 1 threads" in words
    assert "10.0k tokens, 1.0% padding, 10.0% truncated" in words
    assert "out/*.parquet (90 vectors, 2 files, 1.0 MiB)" in words


def test_a_provider_without_devices_is_told_by_its_name() -> None:
    assert RESULT.engine is not None
    engine = msgspec.structs.replace(RESULT.engine, device="", precision="fp16")
    assert "tiny, cpu fp16, 2 x 1 threads" in run_summary(msgspec.structs.replace(RESULT, engine=engine))


def test_batches_that_shrank_are_told_with_the_first_reason() -> None:
    changes = [
        Change(at_s=1.0, from_scale=1.0, to_scale=0.5, reason="others took 3 GiB"),
        Change(at_s=2.0, from_scale=0.5, to_scale=0.125, reason="others took 4 GiB"),
        Change(at_s=20.0, from_scale=0.125, to_scale=0.25, reason="no pressure for 10 s"),
    ]
    assert isinstance(RESULT.engine, EngineFacts)
    memory = msgspec.structs.replace(MEMORY, changes=changes)
    engine = msgspec.structs.replace(RESULT.engine, memory=memory)
    assert (
        "\n  memory got scarce: batches shrank to 1/8 of their size, first because others took 3 GiB;"
        " _report.html has each change\n"
    ) in run_summary(msgspec.structs.replace(RESULT, engine=engine))
    calm = msgspec.structs.replace(RESULT.engine, memory=MEMORY)
    assert "memory" not in run_summary(msgspec.structs.replace(RESULT, engine=calm))


def test_a_device_that_was_lost_is_told() -> None:
    assert isinstance(RESULT.engine, EngineFacts)
    engine = msgspec.structs.replace(RESULT.engine, losses=["887A0005", "it hung"])
    words = run_summary(msgspec.structs.replace(RESULT, engine=engine))
    assert "\n  the device was lost 2 times and the work went on: 887A0005\n" in words
    once = msgspec.structs.replace(RESULT.engine, losses=["it hung"])
    assert "was lost once and" in run_summary(msgspec.structs.replace(RESULT, engine=once))
    assert "lost" not in run_summary(RESULT)


def test_rows_that_are_not_in_the_output_are_told() -> None:
    words = run_summary(RESULT)
    assert "7 rows quarantined" in words
    assert "3 rows skipped" in words


def test_nothing_is_told_of_rows_that_were_not_left_out() -> None:
    clean = msgspec.structs.replace(TOTALS, rows_quarantined=0, rows_skipped=0)
    words = run_summary(msgspec.structs.replace(RESULT, totals=clean))
    assert "quarantine" not in words
    assert "skipped" not in words


def test_a_finished_output_has_nothing_to_do() -> None:
    words = run_summary(msgspec.structs.replace(RESULT, rows_before=100))
    assert words.startswith("nothing to do: all 100 rows are committed in out")


def test_a_resumed_run_tells_what_was_there_before() -> None:
    words = run_summary(msgspec.structs.replace(RESULT, rows_before=60))
    assert words.startswith("embedded 40 rows in 4.0s (10.0 rows/s) (60 were there before)")


def test_a_plan_tells_time_memory_and_bytes_and_that_nothing_was_written() -> None:
    words = plan_summary(PREVIEW)
    assert "1000 rows in 3 files (1.0 MiB), cut into 2 shards" in words
    assert "about 1m23s on cpu" in words
    assert "about 300.0 MiB at most" in words
    assert "990 vectors, about 2.0 MiB; nothing was written" in words


def test_a_plan_draws_the_token_counts() -> None:
    bars = [line.split() for line in plan_summary(PREVIEW).splitlines() if "#" in line]
    assert [(bar[0], bar[2], bar[4]) for bar in bars] == [("1", "16", "10"), ("17", "32", "40"), ("33", "64", "20")]
    assert [len(bar[3]) for bar in bars] == [10, 40, 20]


def test_a_plan_of_no_texts_has_no_bars() -> None:
    assert "#" not in plan_summary(msgspec.structs.replace(PREVIEW, histogram=[]))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"complete": True, "problems": []}, ["2 of 2 shards committed (complete)", "as the ledger says"]),
        ({"complete": False, "problems": [], "shards_planned": 5}, ["2 of 5", "not complete: 3 shards are missing"]),
        ({"complete": True, "problems": ["part-00000.parquet differs"]}, ["problem: part-00000.parquet differs"]),
    ],
    ids=["sound", "half", "damaged"],
)
def test_a_verification_tells_the_counts_and_each_problem(found: dict[str, Any], expected: list[str]) -> None:
    words = verify_summary(Verified(**{"shards_planned": 2, "totals": TOTALS, **found}))
    assert "100 rows read = 90 written + 7 quarantined + 3 skipped; 90 vectors" in words
    assert all(part in words for part in expected)


def test_a_damaged_output_is_not_called_sound() -> None:
    found = Verified(complete=True, shards_planned=2, totals=TOTALS, problems=["a vector is not finite"])
    assert "as the ledger says" not in verify_summary(found)


def test_a_model_tells_its_recipe_and_prompts(tmp_path: Path, empty_home: Path) -> None:
    model = write_tiny_model(tmp_path / "model", pooling=["cls", "mean"], prompts={"query": "q: "})
    words = model_summary(add_model(str(model), name="mine"))
    assert words.startswith("mine (folder model)")
    assert "64 dimensions, cls + mean pooling, normalised, at most 32 tokens" in words
    assert "prompt 'query': 'q: '" in words


def test_an_empty_list_of_models_says_how_to_begin(tmp_path: Path) -> None:
    assert "no models in" in models_summary([], tmp_path)
    assert "`embedmill model add`" in models_summary([], tmp_path)


def test_the_environment_names_what_computes() -> None:
    assert {"system", "machine", "python", "numpy", "pyarrow", "tokenizers"} <= set(environment())
    assert any(name.startswith("onnxruntime") for name in environment())


def test_the_version_is_the_installed_one() -> None:
    assert version()[0].isdigit()


def test_the_peak_of_memory_is_in_bytes() -> None:
    assert 10 << 20 < peak_memory_bytes() < 64 << 30
