"""The memory section of a report: figures, plot, changes."""

from __future__ import annotations

import re
from typing import Any

from embedmill.base.results import Change, MemoryFacts, Point
from embedmill.report.memory import memory_section

GIB = 1 << 30
SHRUNK = Change(at_s=83.0, from_scale=1.0, to_scale=0.125, reason="others took <all>")


def facts(**changes: Any) -> MemoryFacts:
    values: dict[str, Any] = {
        "source": "NVML",
        "scope": "device",
        "ceiling_bytes": 8 * GIB,
        "reserve_bytes": GIB,
        "most_used_bytes": 6 * GIB,
        "least_free_bytes": 2 * GIB,
        "samples": 1200,
        "unknown": 3,
        "reasons": {"GPU is lost": 3},
        "changes": [],
        "series": [Point(at_s=at, used_bytes=int(at) * GIB, free_bytes=None) for at in (0.0, 1.0, 2.0)],
    }
    return MemoryFacts(**(values | changes))


def test_a_run_that_was_not_watched_has_no_section() -> None:
    assert memory_section(None) == ""


def test_memory_is_described_in_one_sentence() -> None:
    assert (
        "NVML: at most 6.0 GiB in use by all processes, at least 2.0 GiB free of 8.0 GiB; reserve 1.0 GiB"
        " (1,200 samples, 3 of them failed); GPU is lost (3 times)."
    ) in memory_section(facts())


def test_memory_without_a_figure_is_unknown() -> None:
    nothing = facts(
        most_used_bytes=None, least_free_bytes=None, ceiling_bytes=None, reserve_bytes=None, reasons={}, series=[]
    )
    assert memory_section(nothing) == "<h3>Memory</h3><p>Unknown (NVML, 1,200 samples).</p>"


def test_each_change_is_a_row_of_a_table() -> None:
    section = memory_section(facts(changes=[SHRUNK]))
    assert (
        "<td class='number'>1m23s</td><td>full size</td><td>1/8</td><td>others took &lt;all&gt;</td></tr></table>"
    ) in section
    assert "<table>" not in memory_section(facts())


def test_the_line_has_a_gap_where_memory_was_unknown() -> None:
    series = [
        Point(at_s=float(at), used_bytes=used, free_bytes=4 * GIB)
        for at, used in enumerate((GIB, 2 * GIB, None, 2 * GIB, GIB))
    ]
    used, free = re.findall(r" d='([^']*)'", memory_section(facts(series=series)))
    assert [word[0] for word in used.split() if word[0].isalpha()] == ["M", "L", "M", "L"]
    assert free.startswith("M0.0 4.0 L180.0 4.0")


def test_one_sample_is_no_line() -> None:
    assert "<svg" not in memory_section(facts(series=[Point(at_s=0.0, used_bytes=GIB, free_bytes=GIB)]))
