"""Summary of a verification for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedmill.base.results import counted
from embedmill.report.units import size

if TYPE_CHECKING:
    from embedmill.sink.verify import VerifyResult

_NAMED = 5


def verify_summary(found: VerifyResult) -> str:
    """List the counts and each problem."""
    totals = found.totals
    missing = found.shards_planned - totals.shards
    are = "is" if missing == 1 else "are"
    lacking = (
        f"{counted(missing, 'shard')} {are} missing"
        if missing
        else "its manifest is missing, and the same run writes it"
    )
    state = "complete" if found.complete else f"not complete: {lacking}"
    rows = f"{totals.rows_written} written + {totals.rows_quarantined} quarantined + {totals.rows_skipped} skipped"
    vectors = f"{counted(totals.vectors, 'vector')}, {size(totals.bytes)}"
    lines = [
        f"{min(totals.shards, found.shards_planned)} of {counted(found.shards_planned, 'shard')} committed ({state})",
        f"  {counted(totals.rows_read, 'row')} read = {rows}; {vectors}",
    ]
    if found.writing:
        lines.append("  a run writes to it: what is committed so far was checked")
    if found.foreign:
        more = f" and {len(found.foreign) - _NAMED} more" if len(found.foreign) > _NAMED else ""
        lines.append(f"  not of this output: {', '.join(found.foreign[:_NAMED])}{more}")
    lines += [f"  problem: {problem}" for problem in found.problems]
    if not found.problems:
        lines.append("  checksums, counts, identity and vectors are as the ledger says")
    return "\n".join(lines)
