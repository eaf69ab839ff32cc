"""A plan is described with estimates and a histogram."""

from __future__ import annotations

import msgspec

from embedmill.report.plan import PlanResult, plan_summary

PLAN = PlanResult(
    files=3,
    left_out={".md": 2, "no ending": 1},
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


def test_a_plan_tells_time_memory_and_bytes_and_that_nothing_was_written() -> None:
    words = plan_summary(PLAN)
    assert "1000 rows in 3 files (1.0 MiB), cut into 2 shards" in words
    assert "3 files in the input folders were not read: 2 .md, 1 no ending" in words
    assert "about 1m23s on cpu" in words
    assert "about 300.0 MiB at most" in words
    assert "990 vectors, about 2.0 MiB; nothing was written" in words


def test_a_plan_draws_the_token_counts() -> None:
    bars = [line.split() for line in plan_summary(PLAN).splitlines() if "#" in line]
    assert [(bar[0], bar[2], bar[4]) for bar in bars] == [("1", "16", "10"), ("17", "32", "40"), ("33", "64", "20")]
    assert [len(bar[3]) for bar in bars] == [10, 40, 20]


def test_a_plan_of_no_texts_has_no_bars() -> None:
    assert "#" not in plan_summary(msgspec.structs.replace(PLAN, histogram=[]))
