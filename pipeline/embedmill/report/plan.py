"""Result of a plan, and the text for a terminal."""

from __future__ import annotations

from msgspec import Struct

from embedmill.base.results import counted
from embedmill.report.units import duration, left_out_lines, short, size

_BAR_WIDTH = 40


class PlanResult(Struct, frozen=True, kw_only=True):
    """Estimate of a run."""

    files: int
    left_out: dict[str, int]  # files of the input's folders that are not read, by kind
    input_bytes: int
    rows: int
    shards: int
    # Exact above, estimated from a sample below.
    sampled_rows: int
    rejected_share: float
    passages: int
    tokens_mean: float
    truncated_share: float
    padding_share: float
    histogram: list[tuple[int, int]]  # (tokens at most, passages of the sample)
    provider: str
    streams: int
    speed_tokens_s: float  # measured
    seconds: float  # of the whole run at that speed
    memory_bytes: int
    output_bytes: int


def plan_summary(plan: PlanResult) -> str:
    """Describe a plan, with a histogram of token counts."""
    most = max((count for _, count in plan.histogram), default=0)
    below = 0
    bars = []
    for edge, count in plan.histogram:
        bar = "#" * round(_BAR_WIDTH * count / max(most, 1))
        bars.append(f"  {below + 1:>5} - {edge:<5} {bar:<{_BAR_WIDTH}} {count}")
        below = edge
    return "\n".join(
        [
            f"input: {counted(plan.rows, 'row')} in {counted(plan.files, 'file')} ({size(plan.input_bytes)}),"
            f" cut into {counted(plan.shards, 'shard')}",
            *left_out_lines(plan.left_out),
            f"sample: {counted(plan.sampled_rows, 'row')}, {plan.rejected_share:.2%} of them would be quarantined;"
            f" {plan.tokens_mean:.0f} tokens each on average, {plan.truncated_share:.1%} truncated,"
            f" {plan.padding_share:.1%} padding",
            "tokens per text:",
            *bars,
            f"time: about {duration(plan.seconds)} on {plan.provider} ({counted(plan.streams, 'stream')},"
            f" {short(plan.speed_tokens_s)} tokens/s measured just now)",
            f"memory: about {size(plan.memory_bytes)} at most",
            f"output: {counted(plan.passages, 'vector')}, about {size(plan.output_bytes)}; nothing was written",
        ]
    )
