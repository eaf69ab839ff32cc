"""Job of `embedmill report`: HTML page of a finished output."""

from __future__ import annotations

from pathlib import Path

from embedmill.base.errors import OutputError
from embedmill.base.results import Manifest
from embedmill.report.run_page import html_report
from embedmill.sink.folder import read_manifest, read_rejected, read_tuning
from embedmill.sink.ledger import Ledger


def report(folder: Path) -> Path:
    """Write the report again. Raises OutputError for unfinished outputs."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise OutputError(f"{folder} holds no finished output (it has no _manifest.json); finish its run first")
    with Ledger(folder, writes_shards=False) as ledger:
        return ledger.write_report(page_of(ledger, manifest))


def page_of(ledger: Ledger, manifest: Manifest) -> str:
    """Render the HTML report of a finished output."""
    rejected = read_rejected(ledger.folder, ledger.entries.values())
    return html_report(manifest, rejected, read_tuning(ledger.folder))
