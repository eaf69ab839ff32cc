"""`_report.html`: the standalone page of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice

from markupsafe import Markup

from embedmill.base.records import Rejected
from embedmill.base.results import EngineFacts, Manifest, ShardFile, Stages, Totals, Tuning
from embedmill.report.memory import memory_section
from embedmill.report.page import bar, page, table
from embedmill.report.tuning import tuning_section
from embedmill.report.units import duration, left_out_lines, short, size, times

# Rows per table: a page of 10,000 shards would be too slow to open.
_ROWS_SHOWN = 200


def html_report(manifest: Manifest, rejected: Iterable[Rejected], tuning: Tuning | None = None) -> str:
    """Render a finished run with quarantined rows and tuning record."""
    files = manifest.fingerprint.get("input.files")
    options = {key: value for key, value in manifest.fingerprint.items() if key != "input.files"}
    head = Markup("<h1>{}</h1>\n<p>embedmill {}, identity <code>{}</code></p>")
    parts = [
        head.format(manifest.model.get("name"), manifest.version, manifest.identity),
        _figures(manifest.totals, manifest.stages),
        _stages(manifest.stages),
        _conservation(manifest.totals),
        _quarantine(rejected),
        _engine(manifest.engine),
        tuning_section(tuning),
        _pairs("Model", manifest.model),
        _pairs("Options", options),
        _pairs("Input files", files if isinstance(files, dict) else {}),
        *(Markup("<p>{}.</p>").format(line) for line in left_out_lines(manifest.left_out)),
        _pairs("Environment", manifest.environment),
        _shards(manifest.shards),
    ]
    return page("embedmill", parts)


def _figures(totals: Totals, stages: Stages) -> Markup:
    padding = totals.padded_tokens / max(totals.tokens, 1) - 1
    figures = {
        "vectors": f"{totals.vectors:,}",
        "tokens": short(totals.tokens),
        "padding": f"{padding:.1%}",
        "truncated": f"{totals.truncated / max(totals.vectors, 1):.1%}",
        "quarantined": f"{totals.rows_quarantined:,}",
        "written": size(totals.bytes),
        "last run": duration(stages.wall),
    }
    figure = Markup("<div><dt>{}</dt><dd>{}</dd></div>")
    return Markup("<dl>{}</dl>").format(Markup().join(figure.format(*one) for one in figures.items()))


def _stages(stages: Stages) -> Markup:
    # The stages overlap, so the busiest one limits the run.
    wall = max(stages.wall, 1e-9)
    shares = {
        "read, tokenise, pack": stages.prepare / wall,
        f"compute ({stages.streams} streams)": stages.compute / (wall * max(stages.streams, 1)),
        "write, sync, commit": stages.write / wall,
    }
    rows = ((name, f"{share:.0%}", bar(share)) for name, share in shares.items())
    return Markup("<h2>Where the time of the last run went</h2>{}").format(table(rows, numbers=[1]))


def _conservation(totals: Totals) -> Markup:
    return Markup("<p>{:,} rows read = {:,} written + {:,} quarantined + {:,} skipped by rule.</p>").format(
        totals.rows_read, totals.rows_written, totals.rows_quarantined, totals.rows_skipped
    )


def _quarantine(rejected: Iterable[Rejected]) -> Markup:
    # Counted while streaming: a quarantine may be larger than memory.
    counts: Counter[str] = Counter()
    examples: dict[str, Rejected] = {}
    for row in rejected:
        counts[row.reason] += 1
        examples.setdefault(row.reason, row)
    if not counts:
        return Markup()
    rows = (
        (f"{count:,}", reason, f"{examples[reason].file}, row {examples[reason].row}")
        for reason, count in counts.most_common(50)
    )
    return Markup("<h2>Quarantine</h2>{}").format(table(rows, head=["rows", "reason", "first"], numbers=[0]))


def _engine(engine: EngineFacts | None) -> Markup:
    """Render provider, device and sessions with canary results."""
    if engine is None:
        return Markup()
    device = f" on {engine.device}" if engine.device else ""
    rows = (
        (
            f"{one.rows} x {one.sequence}" if one.rows else "any",
            f"{one.nodes_placed}/{one.nodes}",
            f"{one.canary_cosine:.7f}",
            duration(one.seconds),
        )
        for one in engine.sessions
    )
    head = ["shape", "nodes on the device", "least canary cosine", "opened in"]
    said = (
        f"{engine.provider} {engine.precision}{device}, {engine.streams} x {engine.threads} threads; {engine.chosen}."
    )
    return Markup("<h2>Device</h2><p>{}</p>{}{}{}").format(
        said, table(rows, head=head, numbers=[1, 2, 3]), _losses(engine.losses), memory_section(engine.memory)
    )


def _losses(losses: list[str]) -> Markup:
    if not losses:
        return Markup()
    reasons = Markup().join(Markup("<li>{}</li>").format(loss) for loss in losses)
    return Markup("<h3>Lost {}</h3><p>A new process continued each time.</p><ol>{}</ol>").format(
        times(len(losses)), reasons
    )


def _pairs(title: str, pairs: Mapping[str, object]) -> Markup:
    code = Markup("<code>{}</code>")
    rows = ((str(name), code.format(value)) for name, value in pairs.items())
    return Markup("<h2>{}</h2>{}{}").format(title, table(islice(rows, _ROWS_SHOWN)), _more(len(pairs)))


def _shards(shards: list[ShardFile]) -> Markup:
    code = Markup("<code>{}</code>")
    shown = shards[:_ROWS_SHOWN]
    rows = ((one.file, f"{one.rows:,}", size(one.bytes), code.format(one.sha256[:16])) for one in shown)
    head = ["file", "rows", "size", "sha256"]
    return Markup("<h2>Shards</h2>{}{}").format(table(rows, head=head, numbers=[1, 2]), _more(len(shards)))


def _more(rows: int) -> Markup:
    return Markup("<p>and {:,} more</p>").format(rows - _ROWS_SHOWN) if rows > _ROWS_SHOWN else Markup()
