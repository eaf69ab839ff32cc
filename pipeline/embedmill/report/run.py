"""The result of a run, and in words for a terminal."""

from __future__ import annotations

from msgspec import Struct

from embedmill.base.records import (
    Stages,
    Totals,
)
from embedmill.base.results import EngineFacts, portion
from embedmill.report.units import duration, short, size, times


class RunResult(Struct, frozen=True, kw_only=True):
    """What a run did: `totals` are of the whole output, `rows_before` those an earlier run had committed."""

    output: str
    model: str
    identity: str
    totals: Totals
    rows_before: int
    engine: EngineFacts | None
    stages: Stages


def run_summary(result: RunResult) -> str:
    """A `RunResult`: what was done, where it is, how to read it."""
    totals, output = result.totals, result.output
    engine, fresh = result.engine, totals.rows_read - result.rows_before
    if fresh == 0 or engine is None:
        lines = [f"nothing to do: all {totals.rows_read} rows are committed in {output}"]
    else:
        stages = result.stages
        rate = fresh / max(stages.wall, 1e-9)
        busy = stages.compute / max(stages.wall * stages.streams, 1e-9)
        before = f" ({result.rows_before} were there before)" if result.rows_before else ""
        lines = [
            f"embedded {fresh} rows in {duration(stages.wall)} ({rate:.1f} rows/s){before}",
            f"  {result.model}, {_engine_words(engine)}, busy {busy:.0%};"
            f" {short(totals.tokens)} tokens, {_share(totals.padded_tokens - totals.tokens, totals.tokens)} padding,"
            f" {_share(totals.truncated, totals.vectors)} truncated",
        ]
        lines += _loss_lines(engine)
        lines += _memory_lines(engine)
    lines += _rows_lines(totals)
    lines.append(f"vectors: {output}/*.parquet ({totals.vectors} vectors, {totals.shards} files, {size(totals.bytes)})")
    lines.append(f"read them: duckdb -c \"SELECT * FROM '{output}/*.parquet' LIMIT 5\"")
    return "\n".join(lines)


def _engine_words(engine: EngineFacts) -> str:
    where = f" on {engine.device}" if engine.device else ""
    return f"{engine.provider} {engine.precision}{where}, {engine.streams} x {engine.threads} threads"


def _loss_lines(engine: EngineFacts) -> list[str]:
    if not engine.losses:
        return []
    return [f"  the device was lost {times(len(engine.losses))} and the work went on: {engine.losses[0]}"]


def _memory_lines(engine: EngineFacts) -> list[str]:
    changes = engine.memory.changes if engine.memory is not None else []
    if not changes:
        return []
    least, first = min(changes, key=lambda change: change.to_scale), changes[0]
    return [
        f"  memory got scarce: batches shrank to {portion(least.to_scale)} of their size, first because"
        f" {first.reason}; _report.html has each change"
    ]


def _rows_lines(totals: Totals) -> list[str]:
    lines = []
    if totals.rows_quarantined:
        lines.append(f"  {totals.rows_quarantined} rows quarantined, with reasons, in quarantine/")
    if totals.rows_skipped:
        lines.append(f"  {totals.rows_skipped} rows skipped by rule (blank lines, or a policy in [rows])")
    return lines


def _share(part: float, whole: float) -> str:
    return f"{part / max(whole, 1):.1%}"
