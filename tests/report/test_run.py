"""The summary of a run: work, output, losses, memory."""

from __future__ import annotations

from pathlib import Path

import msgspec

from embedmill.base.results import Change, EngineFacts, MemoryFacts, Stages
from embedmill.report.run import RunResult, run_summary
from tests.support.outputs import TOTALS

RESULT = RunResult(
    output="out",
    model="tiny",
    identity="0" * 64,
    totals=TOTALS,
    rows_before=0,
    left_out={".json.lz4": 4},
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


def test_a_run_tells_what_it_did_and_where_it_is() -> None:
    words = run_summary(RESULT)
    assert "embedded 100 rows in 4.0s (25.0 rows/s)" in words
    assert "tiny, cpu fp32 on Rare CPU, 2 x 1 threads" in words
    assert "  4 files in the input folders were not read: 4 .json.lz4\n" in words
    assert "10.0k tokens, 1.0% padding, 10.0% truncated" in words
    assert f"{Path('out') / '*.parquet'} (90 vectors, 2 files, 1.0 MiB)" in words


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
        "\n  memory ran short: batches shrank to 1/8 of their size, first because others took 3 GiB;"
        " _report.html lists all changes\n"
    ) in run_summary(msgspec.structs.replace(RESULT, engine=engine))
    calm = msgspec.structs.replace(RESULT.engine, memory=MEMORY)
    assert "memory" not in run_summary(msgspec.structs.replace(RESULT, engine=calm))


def test_a_device_that_was_lost_is_told() -> None:
    assert isinstance(RESULT.engine, EngineFacts)
    engine = msgspec.structs.replace(RESULT.engine, losses=["887A0005", "it hung"])
    words = run_summary(msgspec.structs.replace(RESULT, engine=engine))
    assert "\n  the device was lost 2 times, a new process continued: 887A0005\n" in words
    once = msgspec.structs.replace(RESULT.engine, losses=["it hung"])
    assert "was lost once, " in run_summary(msgspec.structs.replace(RESULT, engine=once))
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
    assert words.startswith("embedded 40 rows in 4.0s (10.0 rows/s) (60 were committed before)")
