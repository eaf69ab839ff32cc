"""Summary of a verification for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedmill.report.units import size

if TYPE_CHECKING:
    from embedmill.sink.verify import VerifyResult

_NAMED = 5


def verify_summary(found: VerifyResult) -> str:
    """List the counts and each problem."""
    totals = found.totals
    missing = found.shards_planned - totals.shards
    lacking = f"{missing} shards are missing" if missing else "its manifest is missing, and the same run writes it"
    state = "complete" if found.complete else f"not complete: {lacking}"
    lines = [
        f"{min(totals.shards, found.shards_planned)} of {found.shards_planned} shards committed ({state})",
        f"  {totals.rows_read} rows read = {totals.rows_written} written + {totals.rows_quarantined} quarantined"
        f" + {totals.rows_skipped} skipped; {totals.vectors} vectors, {size(totals.bytes)}",
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
