"""Text input of every bad kind: each row is written, set aside or skipped, and none is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.conftest import Tally
from tests.hostile.forks import Forks
from tests.support.corpora import Corpus

EXAMPLES = int(os.environ.get("EMBEDMILL_EXAMPLES", "2000"))
LINES = {
    "bad UTF-8": b'{"id": "a", "text": "\xff\xfe"}\n',
    "a cut character": b'{"id": "a", "text": "\xe2\x82"}\n',
    "a lone surrogate": b'{"id": "a", "text": "\\ud800"}\n',
    "a surrogate in UTF-8": b'{"id": "a", "text": "\xed\xa0\x80"}\n',
    "depth 100,000": b'{"id": "a", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "depth 100,000 elsewhere": b'{"id": "a", "text": "stone", "x": ' + b'{"a":' * 100_000 + b"\n",
    "an integer of 5,000 digits": b'{"id": "a", "text": ' + b"9" * 5000 + b"}\n",
    "NaN": b'{"id": "a", "text": NaN}\n',
    "infinity": b'{"id": "a", "text": -Infinity}\n',
    "no constant of any language": b'{"id": "a", "text": "stone", "x": +Infinity}\n',
    "a bare value": b"null\n",
    "a NUL outside": b'{"id": "a", \x00"text": "stone"}\n',
    "a torn last line": b'{"id": "a", "text": "sto',
    "UTF-16": '{"id": "a"}\n'.encode("utf-16-le"),
}
GOOD = {
    "a byte order mark": b'\xef\xbb\xbf{"id": "a", "text": "stone"}\n',
    "CRLF": b'{"id": "a", "text": "stone"}\r\n',
    "an escaped NUL": b'{"id": "a", "text": "stone\\u0000"}\n',
    "duplicate keys": b'{"id": "a", "text": 5, "text": "stone"}\n',
    "an id of 5,000 digits": b'{"id": ' + b"9" * 5000 + b', "text": "stone"}\n',
}
NEXT = b'\n{"id": "next", "text": "rain"}\n'


@pytest.mark.parametrize("kind", LINES)
def test_a_hostile_line_is_set_aside_alone(forks: Forks, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"id": "first", "text": "rain"}\n' + LINES[kind] + NEXT)
    ending = forks.read(tmp_path / "a.jsonl")
    assert ending.error == "", ending.words
    assert ending.conserved
    assert ending.rows_written == 2
    assert ending.rows_quarantined >= 1


@pytest.mark.parametrize("kind", GOOD)
def test_an_odd_line_that_is_valid_is_read(forks: Forks, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(GOOD[kind] + NEXT)
    ending = forks.read(tmp_path / "a.jsonl")
    assert (ending.error, ending.rows_written, ending.rows_quarantined) == ("", 2, 0), ending.words


PIECES = st.sampled_from(
    [
        b'{"id": "a", "text": "',
        b'"}',
        b"\n",
        b"\r",
        b"\x00",
        b'"',
        b",",
        b"{",
        b"[",
        b"\\u",
        b"d800",
        b"\xff",
        b"\xef\xbb\xbf",
    ]
)
NOISE = st.lists(st.one_of(PIECES, st.binary(max_size=8), st.text(max_size=4).map(str.encode)), max_size=30)


@pytest.mark.hostile
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(noise=NOISE.map(b"".join))
def test_any_bytes_are_accounted_for(tmp_path: Path, tally: Tally, name: str, noise: bytes) -> None:
    corpus = Corpus(tmp_path)
    lead = b'{"id": "lead", "text": "rain"}\n' if name == "a.jsonl" else b"id,text\nlead,rain\n"
    (tmp_path / name).write_bytes(lead + noise)
    read = corpus.job(name).read()
    assert read.rows_read == len(read.ids) + len(read.rejected) + read.rows_skipped
    json.dumps([read.ids, read.texts]).encode()
    "".join(read.texts).encode()
    tally["cases"] += 1
    tally["rows written"] += len(read.ids)
    tally["rows set aside"] += len(read.rejected)
