"""Result of a run, and the summary for a terminal."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from embedmill.base.results import EngineFacts, Stages, Totals, counted, portion
from embedmill.report.units import duration, left_out_lines, short, size, times

# Characters that a shell looks at between double quotes.
_SPECIAL = set('"$`\\!')


class RunResult(Struct, frozen=True, kw_only=True):
    """Result of a run; `totals` include the `rows_before` this run."""

    output: str
    model: str
    identity: str
    totals: Totals
    rows_before: int
    left_out: dict[str, int]  # files of the input's folders that were not read, by kind
    engine: EngineFacts | None
    stages: Stages


def run_summary(result: RunResult) -> str:
    """Describe the work, the output and ways to read vectors."""
    totals, output = result.totals, result.output
    engine, fresh = result.engine, totals.rows_read - result.rows_before
    # A run without new texts opens no session and has no engine.
    if fresh == 0 or engine is None:
        lines = [f"nothing to do: all {counted(totals.rows_read, 'row')} are committed in {output}"]
    else:
        stages = result.stages
        rate = fresh / max(stages.wall, 1e-9)
        busy = stages.compute / max(stages.wall * stages.streams, 1e-9)
        before = f" ({result.rows_before} were committed before)" if result.rows_before else ""
        lines = [
            f"embedded {counted(fresh, 'row')} in {duration(stages.wall)} ({rate:.1f} rows/s){before}",
            f"  {result.model}, {_engine(engine)}, busy {busy:.0%};"
            f" {short(totals.tokens)} tokens, {_share(totals.padded_tokens - totals.tokens, totals.tokens)} padding,"
            f" {_share(totals.truncated, totals.vectors)} truncated",
        ]
        lines += _engine_notes(engine)
    lines += _omitted_rows(totals)
    lines += [f"  {line}" for line in left_out_lines(result.left_out)]
    parts = Path(output) / "*.parquet"
    amount = f"{counted(totals.vectors, 'vector')}, {counted(totals.shards, 'file')}, {size(totals.bytes)}"
    lines.append(f"vectors: {parts} ({amount})")
    # DuckDB's globs are those of Python.
    lines.append(f"read them: {_query(f'{glob.escape(Path(output).as_posix())}/*.parquet')}")
    return "\n".join(lines)


def _query(pattern: str) -> str:
    """Return a DuckDB command, quoted for a POSIX shell."""
    quoted = pattern.replace("'", "''")
    statement = f"SELECT * FROM '{quoted}' LIMIT 5"
    return f"duckdb -c {shlex.quote(statement)}" if set(statement) & _SPECIAL else f'duckdb -c "{statement}"'


def _engine(engine: EngineFacts) -> str:
    where = f" on {engine.device}" if engine.device else ""
    return f"{engine.provider} {engine.precision}{where}, {engine.streams} x {engine.threads} threads"


def _engine_notes(engine: EngineFacts) -> Iterator[str]:
    # The first of each kind; the report lists all.
    if engine.losses:
        yield f"  the device was lost {times(len(engine.losses))}, a new process continued: {engine.losses[0]}"
    changes = engine.memory.changes if engine.memory is not None else []
    if changes:
        least = min(change.to_scale for change in changes)
        yield (
            f"  memory ran short: batches shrank to {portion(least)} of their size, first because"
            f" {changes[0].reason}; _report.html lists all changes"
        )


def _omitted_rows(totals: Totals) -> Iterator[str]:
    if totals.rows_quarantined:
        yield f"  {counted(totals.rows_quarantined, 'row')} quarantined, with reasons, in quarantine/"
    if totals.rows_skipped:
        yield f"  {counted(totals.rows_skipped, 'row')} skipped by rule (blank lines, or a policy in [rows])"


def _share(part: float, whole: float) -> str:
    return f"{part / max(whole, 1):.1%}"
