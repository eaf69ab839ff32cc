"""Results in words, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedmill.base.records import Totals
from embedmill.base.results import portion
from embedmill.report.progress import duration, short, size, times

_BAR_WIDTH = 40


def run_summary(result: Any) -> str:
    """A `RunResult`: what was done, where it is, how to read it."""
    totals, output = result.totals, result.output
    fresh = totals.rows_read - result.rows_before
    if fresh == 0:
        lines = [f"nothing to do: all {totals.rows_read} rows are committed in {output}"]
    else:
        stages = result.stages
        rate = fresh / max(stages.wall, 1e-9)
        busy = stages.compute / max(stages.wall * stages.streams, 1e-9)
        before = f" ({result.rows_before} were there before)" if result.rows_before else ""
        lines = [
            f"embedded {fresh} rows in {duration(stages.wall)} ({rate:.1f} rows/s){before}",
            f"  {result.model}, {_engine_words(result.engine)}, busy {busy:.0%};"
            f" {short(totals.tokens)} tokens, {_share(totals.padded_tokens - totals.tokens, totals.tokens)} padding,"
            f" {_share(totals.truncated, totals.vectors)} truncated",
        ]
        lines += _loss_lines(result.engine)
        lines += _memory_lines(result.engine)
    lines += _rows_lines(totals)
    lines.append(f"vectors: {output}/*.parquet ({totals.vectors} vectors, {totals.shards} files, {size(totals.bytes)})")
    lines.append(f"read them: duckdb -c \"SELECT * FROM '{output}/*.parquet' LIMIT 5\"")
    return "\n".join(lines)


def _engine_words(engine: Any) -> str:
    where = f" on {engine.device}" if engine.device else ""
    return f"{engine.provider} {engine.precision}{where}, {engine.streams} x {engine.threads} threads"


def _loss_lines(engine: Any) -> list[str]:
    if not engine.losses:
        return []
    return [f"  the device was lost {times(len(engine.losses))} and the work went on: {engine.losses[0]}"]


def _memory_lines(engine: Any) -> list[str]:
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


def plan_summary(preview: Any) -> str:
    """A `Preview` with a histogram of token counts."""
    most = max((count for _, count in preview.histogram), default=0)
    below = 0
    bars = []
    for edge, count in preview.histogram:
        bars.append(
            f"  {below + 1:>5} - {edge:<5} {'#' * round(_BAR_WIDTH * count / max(most, 1)):<{_BAR_WIDTH}} {count}"
        )
        below = edge
    return "\n".join(
        [
            f"input: {preview.rows} rows in {preview.files} files ({size(preview.input_bytes)}),"
            f" cut into {preview.shards} shards",
            f"sample: {preview.sampled_rows} rows, {preview.rejected_share:.2%} of them would be quarantined;"
            f" {preview.tokens_mean:.0f} tokens each on average, {preview.truncated_share:.1%} truncated,"
            f" {preview.padding_share:.1%} padding",
            "tokens per text:",
            *bars,
            f"time: about {duration(preview.seconds)} on {preview.provider} ({preview.streams} streams,"
            f" {short(preview.speed_tokens_s)} tokens/s measured just now)",
            f"memory: about {size(preview.memory_bytes)} at most",
            f"output: {preview.passages} vectors, about {size(preview.output_bytes)}; nothing was written",
        ]
    )


def verify_summary(found: Any) -> str:
    """A `Verified`: the counts, and each problem on a line."""
    totals = found.totals
    state = "complete" if found.complete else f"not complete: {found.shards_planned - totals.shards} shards are missing"
    lines = [
        f"{totals.shards} of {found.shards_planned} shards committed ({state})",
        f"  {totals.rows_read} rows read = {totals.rows_written} written + {totals.rows_quarantined} quarantined"
        f" + {totals.rows_skipped} skipped; {totals.vectors} vectors, {size(totals.bytes)}",
    ]
    lines += [f"  problem: {problem}" for problem in found.problems]
    if not found.problems:
        lines.append("  checksums, counts, identity and vectors are as the ledger says")
    return "\n".join(lines)


def model_summary(bundle: Any) -> str:
    """A `Bundle` and what its recipe says."""
    card, recipe = bundle.card, bundle.card.recipe
    lines = [
        f"{card.name} ({card.origin})",
        f"  {card.dim} dimensions, {' + '.join(recipe.pooling)} pooling,"
        f" {'normalised' if recipe.normalize else 'not normalised'}, at most {recipe.max_tokens} tokens",
        f"  weights {card.weights[:12]}, tokenizer {card.tokenizer[:12]}, in {bundle.folder}",
    ]
    lines += [f"  prompt {name!r}: {prompt!r}" for name, prompt in recipe.prompts.items()]
    return "\n".join(lines)


def models_summary(bundles: Sequence[Any], folder: Path) -> str:
    """One `Bundle` after another."""
    if not bundles:
        return f"no models in {folder} yet; `embedmill model add` builds the default one"
    return "\n".join(model_summary(bundle) for bundle in bundles)


def _share(part: float, whole: float) -> str:
    return f"{part / max(whole, 1):.1%}"
