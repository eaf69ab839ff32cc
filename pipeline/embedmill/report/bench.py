"""Result of a bench, and the table for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from embedmill.report.units import short, size

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

_WIDTH = 110
_HEAD = ("", "documents/s", "least - most", "x CPU", "tokens/s", "FLOP/s", "of peak", "padding", "memory", "cosine")
_UNKNOWN = "unknown"


class ProviderBench(Struct, frozen=True, kw_only=True):
    """Figures of one provider in one precision; None where unknown."""

    provider: str
    precision: str
    reference: bool
    words: str = ""  # why the provider does not work, else empty
    device: str = ""
    emulated: bool = False
    rounds: list[float] = []  # documents/s of each round
    documents_per_s: float = 0.0  # the median of the rounds
    least: float = 0.0
    most: float = 0.0
    # To the CPU by round: least, median, most; None where the documents differed.
    ratio: tuple[float, float, float] | None = None
    documents: int = 0  # fewer on an emulated device
    tokens_per_s: float = 0.0
    flops_per_s: float | None = None  # operations of the tokens without padding, per second
    peak_flops_per_s: float | None = None  # of matrix products alone
    peak_words: str = ""
    peak_share: float | None = None  # `flops_per_s` over `peak_flops_per_s`
    padding: float = 0.0  # padded tokens over tokens, less 1
    memory_bytes: int | None = None  # peak from before the session was opened to the end of the first pass
    memory_words: str = ""
    cosine: float | None = None  # the lowest of a document to the CPU's float32 vector
    canary_cosine: float = 0.0
    seconds: float = 0.0


class BenchResult(Struct, frozen=True, kw_only=True):
    """Result of a bench: the fastest provider first, failures last."""

    version: str
    machine: Machine
    model: str
    documents: int
    tokens: int
    rounds: int
    measured: list[ProviderBench]
    verdict: str
    chart: str | None


def bench_summary(found: BenchResult) -> str:
    """Format a table, notes, failures and the verdict."""
    return "\n".join([_heading(found), "", *_table(found), "", *_notes(found), found.verdict])


def label(one: ProviderBench) -> str:
    """Return provider and precision."""
    return f"{one.provider} {one.precision}"


def _heading(found: BenchResult) -> str:
    mean = found.tokens / max(found.documents, 1)
    rounds = f"{found.rounds} round{'s' * (found.rounds != 1)}"
    machine = found.machine
    return (
        f"{found.documents:,} documents of {mean:.0f} tokens each on average, {found.model}, {rounds}\n"
        f"{machine.cpu or machine.architecture}, {machine.usable_cores} usable cores, {machine.system}"
    )


def _table(found: BenchResult) -> Iterator[str]:
    rows = [_HEAD, *(_row(one) for one in found.measured if not one.words)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _row(one: ProviderBench) -> tuple[str, ...]:
    return (
        label(one),
        f"{one.documents_per_s:.1f}",
        f"{one.least:.1f} - {one.most:.1f}",
        _UNKNOWN if one.ratio is None else f"{one.ratio[1]:.2f}",
        short(one.tokens_per_s),
        _UNKNOWN if one.flops_per_s is None else short(one.flops_per_s),
        _UNKNOWN if one.peak_share is None else f"{one.peak_share:.0%}",
        f"{one.padding:.1%}",
        _UNKNOWN if one.memory_bytes is None else size(one.memory_bytes),
        "reference" if one.reference else _UNKNOWN if one.cosine is None else f"{one.cosine:.7f}",
    )


def _notes(found: BenchResult) -> Iterator[str]:
    """Describe device, peak and missing figures, or the failure."""
    for one in found.measured:
        if one.words:
            yield from _wrapped(f"{label(one)} does not work: {one.words}")
            continue
        # A missing figure without a reason would look like a defect.
        flops = one.peak_flops_per_s
        peak = f"unknown: {one.peak_words}" if flops is None else f"{short(flops)} FLOP/s"
        notes = [f"on {one.device}" if one.device else "", f"matrix peak {peak}"]
        if one.memory_words:
            notes.append(f"memory {'unknown: ' * (one.memory_bytes is None)}{one.memory_words}")
        if one.documents != found.documents:
            notes.append(f"measured with {one.documents} short documents, so not compared")
        yield from _wrapped(f"{label(one)}: {'; '.join(filter(None, notes))}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_long_words=False)
