"""Style sheet and tables of all HTML pages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

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
.bar { background: var(--line); height: .6rem; border-radius: .3rem; min-width: 8rem; margin-top: .45rem }
.bar div { background: var(--fill); height: 100%; border-radius: .3rem }
"""


def table(rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), numbers: Collection[int] = ()) -> str:
    """Render HTML cells as a table; `numbers`: columns aligned right."""
    kinds = dict.fromkeys(numbers, " class='number'")

    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{kinds.get(column, '')}>{cell}</{tag}>" for column, cell in enumerate(cells))

    lines = [row(head, "th")] if head else []
    lines += [row(cells, "td") for cells in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
