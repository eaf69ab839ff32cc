"""`_report.html`: the standalone page of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from html import escape

from embedmill.base.records import Rejected
from embedmill.base.results import EngineFacts, Manifest, ShardFile, Stages, Totals, Tuning
from embedmill.report.memory import memory_section
from embedmill.report.page import STYLE
from embedmill.report.tuning import tuning_section
from embedmill.report.units import duration, short, size, times

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
        _pairs("Environment", manifest.environment),
        _shards(manifest.shards),
    ]
    # No script, font or image from elsewhere: the page works offline and as an attachment.
    head = f"<meta charset='utf-8'><title>embedmill</title><style>{STYLE}</style>"
    page = "\n".join(parts)
    return f"<!doctype html><html lang='en'><head>{head}</head><body>\n{page}\n</body></html>\n"


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
    """Render the load of each stage."""
    # The stages overlap, so the busiest one limits the run.
    wall = max(stages.wall, 1e-9)
    shares = {
        "read, tokenise, pack": stages.prepare / wall,
        f"compute ({stages.streams} streams)": stages.compute / (wall * max(stages.streams, 1)),
        "write, sync, commit": stages.write / wall,
    }
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class='number'>{share:.0%}</td>"
        f"<td><div class='bar'><div style='width:{min(share, 1):.1%}'></div></div></td></tr>"
        for name, share in shares.items()
    )
    return f"<h2>Where the time of the last run went</h2><table>{rows}</table>"


def _conservation(totals: Totals) -> str:
    return (
        f"<p>{totals.rows_read:,} rows read = {totals.rows_written:,} written"
        f" + {totals.rows_quarantined:,} quarantined + {totals.rows_skipped:,} skipped by rule.</p>"
    )


def _quarantine(rejected: Iterable[Rejected]) -> str:
    """Render reasons with counts and first rows."""
    # Counted while streaming: a quarantine may be larger than memory.
    counts: Counter[str] = Counter()
    examples: dict[str, Rejected] = {}
    for row in rejected:
        counts[row.reason] += 1
        examples.setdefault(row.reason, row)
    if not counts:
        return ""
    rows = "".join(
        f"<tr><td class='number'>{count:,}</td><td>{escape(reason)}</td>"
        f"<td>{escape(examples[reason].file)}, row {examples[reason].row}</td></tr>"
        for reason, count in counts.most_common(50)
    )
    return f"<h2>Quarantine</h2><table><tr><th class='number'>rows</th><th>reason</th><th>first</th></tr>{rows}</table>"


def _engine(engine: EngineFacts | None) -> str:
    """Render provider, device and sessions with canary results."""
    if engine is None:
        return ""
    device = f" on {engine.device}" if engine.device else ""
    rows = "".join(
        f"<tr><td>{f'{one.rows} x {one.sequence}' if one.rows else 'any'}</td>"
        f"<td class='number'>{one.nodes_placed}/{one.nodes}</td><td class='number'>{one.canary_cosine:.7f}</td>"
        f"<td class='number'>{duration(one.seconds)}</td></tr>"
        for one in engine.sessions
    )
    head = (
        "<tr><th>shape</th><th class='number'>nodes on the device</th><th class='number'>least canary cosine</th>"
        "<th class='number'>opened in</th></tr>"
    )
    return (
        f"<h2>Device</h2><p>{escape(engine.provider)} {escape(engine.precision)}{escape(device)},"
        f" {engine.streams} x {engine.threads} threads; {escape(engine.chosen)}.</p><table>{head}{rows}</table>"
        f"{_losses(engine.losses)}{memory_section(engine.memory)}"
    )


def _losses(losses: list[str]) -> str:
    """Render the reasons of device losses."""
    reasons = "".join(f"<li>{escape(loss)}</li>" for loss in losses)
    note = "A new process continued each time."
    return f"<h3>Lost {times(len(losses))}</h3><p>{note}</p><ol>{reasons}</ol>" * bool(losses)


def _pairs(title: str, pairs: Mapping[str, object]) -> str:
    shown = list(pairs.items())[:_ROWS_SHOWN]
    more = f"<p>and {len(pairs) - len(shown):,} more</p>" if len(pairs) > len(shown) else ""
    rows = "".join(f"<tr><td>{escape(str(k))}</td><td><code>{escape(str(v))}</code></td></tr>" for k, v in shown)
    return f"<h2>{title}</h2><table>{rows}</table>{more}"


def _shards(shards: list[ShardFile]) -> str:
    rows = "".join(
        f"<tr><td>{escape(shard.file)}</td><td class='number'>{shard.rows:,}</td>"
        f"<td class='number'>{size(shard.bytes)}</td><td><code>{shard.sha256[:16]}</code></td></tr>"
        for shard in shards[:_ROWS_SHOWN]
    )
    more = f"<p>and {len(shards) - _ROWS_SHOWN:,} more</p>" if len(shards) > _ROWS_SHOWN else ""
    head = "<tr><th>file</th><th class='number'>rows</th><th class='number'>size</th><th>sha256</th></tr>"
    return f"<h2>Shards</h2><table>{head}{rows}</table>{more}"
