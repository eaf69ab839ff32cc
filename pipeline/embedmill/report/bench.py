"""What a bench measured, for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from embedmill.report.units import short, size

if TYPE_CHECKING:
    from embedmill.engine.machine.machine import Machine

_WIDTH = 110
_HEAD = ("", "documents/s", "least - most", "x CPU", "tokens/s", "FLOP/s", "of peak", "padding", "memory", "cosine")
UNKNOWN = "unknown"


class ProviderBench(Struct, frozen=True, kw_only=True):
    """One provider in one precision. `words` is why it does not work, else empty. None: not known.

    rounds                    documents/s of each round; `documents_per_s` is their median, `least` and `most` the ends
    ratio                     to the CPU, round by round: least, median, most; None where it had other documents
    documents                 how many it was measured with: fewer on an emulated device
    flops_per_s               operations that the tokens cost without padding, per second; `peak_flops_per_s` what the
                              device reaches in matrix products alone, `peak_share` their quotient
    padding                   padded tokens over tokens, less 1
    memory_bytes              at most from before the session was opened to the end of the first pass
    cosine                    the least of a document to its vector on the CPU in float32
    """

    provider: str
    precision: str
    reference: bool
    words: str = ""
    device: str = ""
    emulated: bool = False
    rounds: list[float] = []
    documents_per_s: float = 0.0
    least: float = 0.0
    most: float = 0.0
    ratio: tuple[float, float, float] | None = None
    documents: int = 0
    tokens_per_s: float = 0.0
    flops_per_s: float | None = None
    peak_flops_per_s: float | None = None
    peak_words: str = ""
    peak_share: float | None = None
    padding: float = 0.0
    memory_bytes: int | None = None
    memory_words: str = ""
    cosine: float | None = None
    canary_cosine: float = 0.0
    seconds: float = 0.0


class BenchResult(Struct, frozen=True, kw_only=True):
    """What was measured, the fastest first, and those that do not work at the end; `verdict` is it in a sentence."""

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
    """A `Bench`: a table, the fastest first, what must be known to read it, what does not work, and the verdict."""
    return "\n".join([_heading(found), "", *_table(found), "", *_notes(found), *_failures(found), found.verdict])


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
    for row in rows:
        yield _line(row, widths)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.ljust(width) if not column else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join([first, *rest]).rstrip()


def _row(one: ProviderBench) -> tuple[str, ...]:
    return (
        name(one),
        f"{one.documents_per_s:.1f}",
        f"{one.least:.1f} - {one.most:.1f}",
        UNKNOWN if one.ratio is None else f"{one.ratio[1]:.2f}",
        short(one.tokens_per_s),
        UNKNOWN if one.flops_per_s is None else short(one.flops_per_s),
        UNKNOWN if one.peak_share is None else f"{one.peak_share:.0%}",
        f"{one.padding:.1%}",
        UNKNOWN if one.memory_bytes is None else size(one.memory_bytes),
        "reference" if one.reference else UNKNOWN if one.cosine is None else f"{one.cosine:.7f}",
    )


def name(one: ProviderBench) -> str:
    """What a provider in a precision is called."""
    return f"{one.provider} {one.precision}"


def _notes(found: BenchResult) -> Iterator[str]:
    """What each computed on, its peak, and why something is not known."""
    for one in found.measured:
        if one.words:
            continue
        peak = f"unknown: {one.peak_words}"
        if one.peak_flops_per_s is not None:
            peak = f"{short(one.peak_flops_per_s)} FLOP/s"
        words = [f"on {one.device}" if one.device else "", f"matrix peak {peak}"]
        if one.memory_words:
            words.append(f"memory {'unknown: ' * (one.memory_bytes is None)}{one.memory_words}")
        if one.documents != found.documents:
            words.append(f"measured with {one.documents} short documents, so not compared")
        yield from _wrapped(f"{name(one)}: {'; '.join(word for word in words if word)}")


def _failures(found: BenchResult) -> Iterator[str]:
    for one in found.measured:
        if one.words:
            yield from _wrapped(f"{name(one)} does not work: {one.words}")


def _wrapped(words: str) -> list[str]:
    """Words as lines, the later ones indented."""
    return textwrap.wrap(words, _WIDTH, subsequent_indent="  ", break_long_words=False)
