"""`_report.html`: the standalone page of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape
from itertools import islice

from embedmill.base.records import Rejected
from embedmill.base.results import EngineFacts, Manifest, ShardFile, Stages, Totals, Tuning
from embedmill.report.memory import memory_section
from embedmill.report.page import STYLE, table
from embedmill.report.tuning import tuning_section
from embedmill.report.units import duration, left_out_lines, short, size, times

# Rows per table: a page of 10,000 shards would be too slow to open.
_ROWS_SHOWN = 200


def html_report(manifest: Manifest, rejected: Iterable[Rejected], tuning: Tuning | None = None) -> str:
    """Render a finished run with quarantined rows and tuning record."""
    parts = [
        f"<h1>{escape(str(manifest.model['name']))}</h1>",
        f"<p>embedmill {escape(manifest.version)}, identity <code>{escape(manifest.identity)}</code></p>",
        _figures(manifest.totals, manifest.stages),
        _stages(manifest.stages),
        _conservation(manifest.totals),
        _quarantine(rejected),
        _engine(manifest.engine),
        tuning_section(tuning),
        _pairs("Model", manifest.model),
        _pairs("Options", {k: v for k, v in manifest.fingerprint.items() if k != "input.files"}),
        _pairs("Input files", manifest.fingerprint["input.files"]),
        *(f"<p>{escape(line)}.</p>" for line in left_out_lines(manifest.left_out)),
        _pairs("Environment", manifest.environment),
        _shards(manifest.shards),
    ]
    # No script, font or image from elsewhere: the page works offline and as an attachment.
    head = f"<head><meta charset='utf-8'><title>embedmill</title><style>{STYLE}</style></head>"
    return "\n".join([f"<!doctype html><html lang='en'>{head}<body>", *parts, "</body></html>\n"])


def _figures(totals: Totals, stages: Stages) -> str:
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
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures.items()) + "</dl>"


def _stages(stages: Stages) -> str:
    # The stages overlap, so the busiest one limits the run.
    wall = max(stages.wall, 1e-9)
    shares = {
        "read, tokenise, pack": stages.prepare / wall,
        f"compute ({stages.streams} streams)": stages.compute / (wall * max(stages.streams, 1)),
        "write, sync, commit": stages.write / wall,
    }
    bar = "<div class='bar'><div style='width:{:.1%}'></div></div>"
    rows = ((escape(name), f"{share:.0%}", bar.format(min(share, 1))) for name, share in shares.items())
    return f"<h2>Where the time of the last run went</h2>{table(rows, numbers=[1])}"


def _conservation(totals: Totals) -> str:
    return (
        f"<p>{totals.rows_read:,} rows read = {totals.rows_written:,} written"
        f" + {totals.rows_quarantined:,} quarantined + {totals.rows_skipped:,} skipped by rule.</p>"
    )


def _quarantine(rejected: Iterable[Rejected]) -> str:
    # Counted while streaming: a quarantine may be larger than memory.
    counts: Counter[str] = Counter()
    examples: dict[str, Rejected] = {}
    for row in rejected:
        counts[row.reason] += 1
        examples.setdefault(row.reason, row)
    if not counts:
        return ""
    rows = (
        (f"{count:,}", escape(reason), f"{escape(examples[reason].file)}, row {examples[reason].row}")
        for reason, count in counts.most_common(50)
    )
    return f"<h2>Quarantine</h2>{table(rows, head=['rows', 'reason', 'first'], numbers=[0])}"


def _engine(engine: EngineFacts | None) -> str:
    """Render provider, device and sessions with canary results."""
    if engine is None:
        return ""
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
    return (
        f"<h2>Device</h2><p>{escape(engine.provider)} {escape(engine.precision)}{escape(device)},"
        f" {engine.streams} x {engine.threads} threads; {escape(engine.chosen)}.</p>"
        f"{table(rows, head=head, numbers=[1, 2, 3])}{_losses(engine.losses)}{memory_section(engine.memory)}"
    )


def _losses(losses: list[str]) -> str:
    reasons = "".join(f"<li>{escape(loss)}</li>" for loss in losses)
    note = "A new process continued each time."
    return f"<h3>Lost {times(len(losses))}</h3><p>{note}</p><ol>{reasons}</ol>" * bool(losses)


def _pairs(title: str, pairs: Mapping[str, object]) -> str:
    rows = ((escape(str(name)), f"<code>{escape(str(value))}</code>") for name, value in pairs.items())
    return f"<h2>{title}</h2>{table(islice(rows, _ROWS_SHOWN))}{_more(len(pairs))}"


def _shards(shards: list[ShardFile]) -> str:
    shown = shards[:_ROWS_SHOWN]
    rows = ((escape(one.file), f"{one.rows:,}", size(one.bytes), f"<code>{one.sha256[:16]}</code>") for one in shown)
    head = ["file", "rows", "size", "sha256"]
    return f"<h2>Shards</h2>{table(rows, head=head, numbers=[1, 2])}{_more(len(shards))}"


def _more(rows: int) -> str:
    return f"<p>and {rows - _ROWS_SHOWN:,} more</p>" if rows > _ROWS_SHOWN else ""
