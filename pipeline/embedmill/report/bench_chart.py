"""Chart of a bench: standalone SVG, light or dark."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from markupsafe import Markup

from embedmill.report.bench import BenchResult, ProviderBench, label
from embedmill.report.plot import ticks

# Pixels: labels on the left, bars in the middle, shares of the peak on the right.
_WIDTH, _LEFT, _BARS, _GAP, _SHARES = 900, 160, 410, 150, 150
_MARGIN, _ROW, _BAR, _LINE = 24, 46, 18, 21
# Characters per line of the title and the subtitle: SVG does not wrap text.
_TITLE, _SUBTITLE = 105, 120
# The colours of the HTML report. A media query, because few SVG viewers support light-dark().
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b1f24 } .title { font-size: 14px; font-weight: 600 }
.soft { fill: #5b6470; font-size: 12px } .end { text-anchor: end } .middle { text-anchor: middle }
.ground { fill: #fff } .bar { fill: #2f6f9f } .reference { fill: #5b6470 } .share { fill: #2f6f9f; opacity: .55 }
.whole { fill: #d9dee4 } .grid { stroke: #d9dee4 } .whisker { stroke: #1b1f24; stroke-width: 1.5; fill: none }
.halo { stroke: #fff; stroke-width: 4; fill: none }
@media (prefers-color-scheme: dark) {
  text { fill: #e6e8eb } .soft { fill: #9aa4b0 } .ground { fill: #14171b } .bar, .share { fill: #6cb2e3 }
  .reference { fill: #9aa4b0 } .whole { fill: #343b44 } .grid { stroke: #343b44 } .whisker { stroke: #e6e8eb }
  .halo { stroke: #14171b }
}
"""


def bench_chart(found: BenchResult) -> str:
    """Draw documents/s with whiskers, and shares of the peak."""
    working = [one for one in found.measured if not one.words]
    most = max(one.most for one in working)
    step, end = (ticks(most)[place] for place in (1, -1))
    heading = _heading(found)
    top = _MARGIN + _LINE * len(heading)
    height = top + _ROW * len(working) + 58
    parts = [
        Markup(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{0}' height='{1}' viewBox='0 0 {0} {1}' role='img'>"
            "<title>{2}</title><style>{3}</style>"
        ).format(_WIDTH, height, found.verdict, Markup(_STYLE)),
        _rect("ground", 0, 0, _WIDTH, height, corner=0),
        *(_text(20, _MARGIN + _LINE * number, line, kind) for number, (line, kind) in enumerate(heading)),
        *_axes(top, top + _ROW * len(working), step, end),
        *(part for number, one in enumerate(working) for part in _row(one, top + _ROW * number, end)),
        Markup("</svg>\n"),
    ]
    return Markup("\n").join(parts)


def _heading(found: BenchResult) -> list[tuple[str, str]]:
    """Return (line, class) pairs of title and subtitle."""
    mean = found.tokens / max(found.documents, 1)
    machine = found.machine
    subtitle = (
        f"{found.documents:,} documents of {mean:.0f} tokens on average, {found.model};"
        f" {machine.cpu or machine.architecture}, {machine.usable_cores} cores, {machine.system};"
        f" embedmill {found.version}"
    )
    verdict = f"{found.verdict[:1].upper()}{found.verdict[1:]}"
    return [(line, "title") for line in wrap(verdict, _TITLE)] + [(line, "soft") for line in wrap(subtitle, _SUBTITLE)]


def _axes(top: float, bottom: float, step: float, end: float) -> Iterator[Markup]:
    """Draw grid, ticks and labels of both panels."""
    shares = _LEFT + _BARS + _GAP
    ticks = [(_LEFT + _BARS * number * step / end, f"{number * step:g}") for number in range(round(end / step) + 1)]
    ticks += [(shares + _SHARES * part, f"{part:.0%}") for part in (0, 0.5, 1)]
    for across, tick in ticks:
        yield _path("grid", f"M{across:.1f} {top}V{bottom}")
        yield _text(across, bottom + 18, tick, "soft middle")
    caption = "documents per second (median; whiskers: slowest and fastest round)"
    yield _text(_LEFT + _BARS / 2, bottom + 40, caption, "soft middle")
    yield _text(shares + _SHARES / 2, bottom + 40, "useful FLOP/s, of matrix peak", "soft middle")


def _row(one: ProviderBench, top: float, end: float) -> Iterator[Markup]:
    middle = top + _ROW / 2
    length, least, most = (_BARS * rate / end for rate in (one.documents_per_s, one.least, one.most))
    ratio = "" if one.reference or one.ratio is None else f"  ({one.ratio[1]:.2f} x CPU)"
    yield _text(_LEFT - 12, middle + 4, f"{label(one)}{' (emulated)' * one.emulated}", "end")
    kind = "bar reference" if one.reference else "bar"
    yield _rect(kind, _LEFT, middle - _BAR / 2, length, _BAR)
    if most > least:
        line = f"M{_LEFT + least:.1f} {middle - 6}v12m0 -6H{_LEFT + most:.1f}m0 -6v12"
        # The halo keeps a whisker visible on its bar.
        yield _path("halo", line) + _path("whisker", line)
    yield _text(_LEFT + most + 8, middle + 4, f"{one.documents_per_s:.1f}{ratio}", "")
    yield from _share(one, _LEFT + _BARS + _GAP, middle)


def _share(one: ProviderBench, left: float, middle: float) -> Iterator[Markup]:
    if one.peak_share is None:
        yield _text(left + 6, middle + 4, "unknown", "soft")
        return
    top = middle - _BAR / 2
    yield _rect("whole", left, top, _SHARES, _BAR)
    # Above 1 where the peak, measured apart, came out low.
    yield _rect("share", left, top, _SHARES * min(one.peak_share, 1), _BAR)
    yield _text(left + _SHARES - 6, middle + 4, f"{one.peak_share:.0%}", "end")


def _text(across: float, down: float, text: str, kind: str) -> Markup:
    return Markup("<text x='{:.1f}' y='{:.1f}' class='{}'>{}</text>").format(across, down, kind, text)


def _path(kind: str, line: str) -> Markup:
    return Markup("<path class='{}' d='{}'/>").format(kind, line)


def _rect(kind: str, x: float, y: float, width: float, height: float, *, corner: int = 3) -> Markup:
    rect = Markup("<rect class='{}' x='{:g}' y='{:g}' width='{:.1f}' height='{:g}' rx='{}'/>")
    return rect.format(kind, x, y, width, height, corner)
