"""HTML pages, tables and bars; all text is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterable, Sequence
from hashlib import sha256

from markupsafe import Markup

from embedmill.base.streams import escaped

# Inline in every page, so that a page can be mailed or archived as one file.
STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#1b1f24, #e6e8eb); --soft: light-dark(#5b6470, #9aa4b0);
  --line: light-dark(#d9dee4, #343b44); --fill: light-dark(#2f6f9f, #6cb2e3); --ground: light-dark(#fff, #14171b); }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 60rem;
  margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2.25rem 0 .5rem }
h3 { font-size: .95rem; margin: 1.5rem 0 .25rem }
p, .soft { color: var(--soft) } code { font-size: .9em; overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem; margin: 1.5rem 0 }
dt { color: var(--soft); font-size: .85rem } dd { margin: 0; font-size: 1.35rem; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td, th { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 600; font-size: .85rem; color: var(--soft) } .number { text-align: right }
.bar { background: var(--line); height: .6rem; border-radius: .3rem; width: 100%; min-width: 8rem; margin-top: .45rem }
.bar rect { fill: var(--fill) }
"""


# Whatever an output or a model says, a page runs no script and loads nothing.
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-{}'"


def page(title: str, body: Iterable[Markup]) -> str:
    """Render a page without scripts and links."""
    policy = _POLICY.format(b64encode(sha256(STYLE.encode()).digest()).decode())
    head = Markup("<meta charset='utf-8'><meta http-equiv='Content-Security-Policy' content=\"{}\"><title>{}</title>")
    whole = Markup("<!doctype html><html lang='en'><head>{}<style>{}</style></head><body>\n{}\n</body></html>\n")
    # Plain text again: what is done to Markup later would be escaped.
    return escaped(str(whole.format(head.format(Markup(policy), title), Markup(STYLE), Markup("\n").join(body))))


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), numbers: Collection[int] = ()) -> Markup:
    """Render cells as a table; `numbers`: columns aligned right."""
    kinds = dict.fromkeys(numbers, Markup(" class='number'"))

    def row(cells: Sequence[str], tag: Markup) -> Markup:
        line = (tag.format(kinds.get(column, ""), cell) for column, cell in enumerate(cells))
        return Markup("<tr>{}</tr>").format(Markup().join(line))

    lines = [row(head, Markup("<th{}>{}</th>"))] if head else []
    lines += [row(cells, Markup("<td{}>{}</td>")) for cells in rows]
    return Markup("<table>{}</table>").format(Markup().join(lines))


def bar(share: float) -> Markup:
    """Draw a share of 1 as a bar."""
    return Markup("<svg class='bar' preserveAspectRatio='none'><rect width='{:.1%}' height='100%'/></svg>").format(
        min(max(share, 0), 1)
    )
