"""The report is one standalone page that escapes all data."""

from __future__ import annotations

import base64
import hashlib
from html.parser import HTMLParser
from typing import Any

import pytest
from msgspec import structs

from embedmill.base.records import Rejected
from embedmill.base.results import EngineFacts, Manifest, MemoryFacts, SessionFacts, ShardFile, Stages, Totals
from embedmill.report.run_page import html_report
from tests.support.tunings import TRIAL, TUNING

EVIL = "<script>alert('x')</script>&amp;\"'"

MEMORY = MemoryFacts(
    source="RAM",
    scope="machine",
    ceiling_bytes=None,
    reserve_bytes=None,
    most_used_bytes=None,
    least_free_bytes=None,
    samples=1,
    unknown=1,
    reasons={},
    changes=[],
    series=[],
)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "version": "0.1.0",
        "identity": "a" * 64,
        "job": "c" * 64,
        "model": {"name": "tiny", "dim": 32},
        "fingerprint": {"shard.rows": 2048, "input.files": {"a.jsonl": "10 bytes, aa"}},
        "totals": Totals(
            shards=1, rows_read=1234, rows_written=1200, rows_quarantined=30, rows_skipped=4, vectors=1200
        ),
        "shards": [ShardFile(file="part-00000.parquet", rows=1200, bytes=1 << 20, sha256="b" * 64, entry="e" * 64)],
        "environment": {"python": "3.11"},
        "stages": Stages(wall=10.0, prepare=1.0, compute=15.0, write=2.0, streams=2),
    }
    return Manifest(**(values | changes))


def engine(**changes: Any) -> EngineFacts:
    fixed = SessionFacts(rows=64, sequence=256, nodes_placed=93, nodes=93, canary_cosine=0.9999995, seconds=1.5)
    free = SessionFacts(rows=0, sequence=0, nodes_placed=90, nodes=93, canary_cosine=0.99912345, seconds=0.25)
    values: dict[str, Any] = {
        "provider": "moon",
        "device": "Moon GPU",
        "precision": "fp16",
        "streams": 1,
        "threads": 2,
        "sessions": [fixed, free],
        "chosen": "fastest of those measured on 2026-11-22: moon fp16 80.0 documents/s",
    }
    return EngineFacts(**(values | changes))


def rejected(reason: str, row: int = 1, file: str = "a.jsonl") -> Rejected:
    return Rejected(file=file, row=row, reason=reason, id=None, excerpt="")


class Page(HTMLParser):
    """Parsed page: tags, open tags and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_page_tells_what_became_of_every_row() -> None:
    words = Page(html_report(manifest(), [])).words
    assert "1,234 rows read = 1,200 written + 30 quarantined + 4 skipped by rule" in words


def test_the_page_counts_the_reasons_and_shows_the_first_row_of_each() -> None:
    rows = [rejected("text is null", 3), rejected("text is null", 5), rejected("not JSON", 9, "b.jsonl")]
    words = Page(html_report(manifest(), rows)).words
    assert "2text is nulla.jsonl, row 3" in words
    assert "1not JSONb.jsonl, row 9" in words


def test_the_page_lists_options_files_environment_and_shards() -> None:
    words = Page(html_report(manifest(), [])).words
    for part in ("shard.rows", "2048", "a.jsonl", "10 bytes, aa", "python", "3.11", "part-00000.parquet", "1.0 MiB"):
        assert part in words


def test_the_page_tells_what_computed_how_it_was_chosen_and_what_its_canaries_said() -> None:
    words = Page(html_report(manifest(engine=engine()), [])).words
    assert "moon fp16 on Moon GPU, 1 x 2 threads" in words
    assert "fastest of those measured on 2026-11-22: moon fp16 80.0 documents/s" in words
    assert "64 x 25693/930.99999951.5s" in words
    assert "any90/930.9991235" in words


def test_the_page_tells_why_the_device_was_lost() -> None:
    words = Page(html_report(manifest(engine=engine(losses=["887A0005", "it hung"])), [])).words
    assert "Lost 2 timesA new process continued each time.887A0005it hung" in words
    assert "Lost" not in Page(html_report(manifest(engine=engine()), [])).words


def test_a_device_without_a_name_is_left_out() -> None:
    assert "moon fp16, 1 x 2 threads" in Page(html_report(manifest(engine=engine(device="")), [])).words


def test_the_page_needs_nothing_beside_it() -> None:
    page = Page(html_report(manifest(), []))
    assert page.links == []
    assert not page.tags & {"script", "link", "img", "iframe"}


def test_every_element_is_closed() -> None:
    assert Page(html_report(manifest(engine=engine()), [rejected("text is null")])).open == []


@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"name": EVIL}},
        {"model": {"name": "tiny", "prompt": EVIL}},
        {"fingerprint": {EVIL: EVIL, "input.files": {}}},
        {"fingerprint": {"input.files": {EVIL: EVIL}}},
        {"environment": {EVIL: EVIL}},
        {"engine": engine(device=EVIL)},
        {"engine": engine(chosen=EVIL)},
        {"engine": engine(losses=[EVIL])},
        {"engine": engine(provider=EVIL)},
        {"engine": engine(memory=structs.replace(MEMORY, source=EVIL))},
        {"engine": engine(memory=structs.replace(MEMORY, reasons={EVIL: 1}))},
        {"version": EVIL},
        {"identity": EVIL},
        {"left_out": {EVIL: 1}},
        {"shards": [ShardFile(file=EVIL, rows=1, bytes=1, sha256="", entry="")]},
        {"shards": [ShardFile(file=EVIL, rows=1, bytes=1, sha256="<script>1", entry="")]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_the_data_says_is_shown_as_text(changes: dict[str, Any]) -> None:
    page = Page(html_report(manifest(**changes), []))
    assert "script" not in page.tags
    assert EVIL in page.words


def test_what_a_tuning_says_is_shown_as_text() -> None:
    spoilt = structs.replace(TUNING, precision=EVIL, trials=[structs.replace(TRIAL, failure=EVIL, precision=EVIL)])
    page = Page(html_report(manifest(), [], spoilt))
    assert "script" not in page.tags
    assert page.words.count(EVIL) > 2


def test_no_page_may_run_a_script_or_load_anything() -> None:
    page = html_report(manifest(), [])
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"
    assert f"<meta http-equiv='Content-Security-Policy' content=\"{policy}\">" in page
    assert " style=" not in page


def test_what_a_bad_row_says_is_shown_as_text() -> None:
    page = Page(html_report(manifest(), [rejected(EVIL, file=EVIL)]))
    assert "script" not in page.tags
    assert EVIL in page.words


def test_a_page_of_many_shards_and_files_stays_readable() -> None:
    shards = [
        ShardFile(file=f"part-{n:05d}.parquet", rows=1, bytes=1, sha256="b" * 64, entry="e" * 64) for n in range(5000)
    ]
    files = {f"{number}.jsonl": "10 bytes, aa" for number in range(5000)}
    page = html_report(manifest(shards=shards, fingerprint={"input.files": files}), [])
    assert len(page) < 500_000
    assert page.count("and 4,800 more") == 2


def test_a_run_that_did_nothing_has_a_page_all_the_same() -> None:
    assert "0" in Page(html_report(manifest(totals=Totals(), shards=[], stages=Stages()), [])).words
