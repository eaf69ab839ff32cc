"""Hostile outputs in a real browser: nothing in a report runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from markupsafe import Markup
from msgspec import structs

from embedmill.base.files.sealed import seal
from embedmill.base.records import Rejected
from embedmill.base.results import ShardFile
from embedmill.jobs.report import report
from embedmill.report.page import page
from embedmill.report.run_page import html_report
from embedmill.sink.folder import read_manifest
from tests.support.outputs import write_output
from tests.support.tunings import TRIAL, TUNING

OWNED = "document.documentElement.id='owned'"
PAYLOADS = [
    f"<script>{OWNED}</script>",
    f"</style><script>{OWNED}</script>",
    f'</title><img src=x onerror="{OWNED}">',
    f"'><svg onload={OWNED}>",
    f'" onmouseover={OWNED} autofocus onfocus={OWNED} x="',
    f"<iframe srcdoc='<script>parent.{OWNED}</script>'></iframe>",
    f'<a href="javascript:{OWNED}">',
    "<meta http-equiv=refresh content='0;url=about:blank'>",
    "<style>html{id:owned}</style><base href=//evil.example>",
    f"--><script>{OWNED}</script><!--",
]


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed")
    return found


def shown_by(browser: str, page: Path) -> str:
    """The document after its scripts ran."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    done = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.hostile
@pytest.mark.parametrize("evil", PAYLOADS)
def test_nothing_in_the_report_of_a_hostile_output_runs(tmp_path: Path, browser: str, evil: str) -> None:
    output = write_output(tmp_path / "out")
    manifest = read_manifest(output)
    assert manifest is not None
    spoilt = structs.replace(
        manifest,
        version=evil,
        identity=evil,
        model={"name": evil, evil: evil},
        fingerprint={evil: evil, "input.files": {evil: evil}},
        shards=[ShardFile(file=evil, rows=1, bytes=1, sha256=evil, entry=evil), *manifest.shards],
        environment={evil: evil},
        left_out={evil: 1},
    )
    (output / "_manifest.json").write_bytes(seal(spoilt)[1])
    tuning = structs.replace(TUNING, precision=evil, trials=[structs.replace(TRIAL, failure=evil)])
    (output / "_tuning.json").write_bytes(seal(tuning)[1])
    shown = shown_by(browser, report(output))
    assert 'id="owned"' not in shown
    assert "Shards" in shown
    bad = Rejected(file=evil, row=1, reason=evil, id=evil, excerpt=evil)
    (tmp_path / "page.html").write_text(html_report(spoilt, [bad], tuning))
    assert 'id="owned"' not in shown_by(browser, tmp_path / "page.html")


@pytest.mark.hostile
def test_a_script_would_not_run_though_it_were_in_the_page(tmp_path: Path, browser: str) -> None:
    script = f"<script>{OWNED}</script><svg onload={OWNED}>"
    (tmp_path / "with.html").write_text(page("with the policy", [Markup(script)]))
    assert 'id="owned"' not in shown_by(browser, tmp_path / "with.html")
    (tmp_path / "without.html").write_text(f"<!doctype html><html><body>{script}</body></html>")
    assert 'id="owned"' in shown_by(browser, tmp_path / "without.html")
