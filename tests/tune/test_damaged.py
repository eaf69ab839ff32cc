"""Kept tunings that are damaged or made up: ignored with a warning, or used and shown without an error."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.base.home import read_record
from embedmill.base.results import Tuning
from embedmill.report.tuning import tuning_section, tunings_summary
from embedmill.tune.kept import holds
from tests.support.systems import make_odd
from tests.support.tunings import TUNING

GOOD = json.loads(msgspec.json.encode(TUNING))
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    10**6,
    2**63,
    -(2**70),
    0.5,
    -0.5,
    1e-320,
    1e300,
    "",
    "fp99",
    "\x1b[31m",
    [],
    [[]],
    {},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a JSON value holds others."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*path, key)
        yield from places(one, (*path, key))


PLACES = list(places(GOOD))


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(ODD)), min_size=1, max_size=4))
def test_a_tuning_with_any_other_values_is_ignored_or_shown(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    spoilt = json.loads(json.dumps(GOOD))
    for (*path, last), value in changes:
        place = spoilt
        for key in path:
            place = place[key] if isinstance(place, dict | list) and _has(place, key) else {}
        if isinstance(place, dict | list) and _has(place, last):
            place[last] = value
    file = tmp_path_factory.getbasetemp() / "tuning.json"
    file.write_text(json.dumps(spoilt))
    tuning = read_record(file, Tuning)
    if tuning is not None:
        tunings_summary([tuning])
        tuning_section(tuning)
        holds(tuning, None)
        holds(tuning, 1 << 30)


def _has(place: Any, key: Any) -> bool:
    return key in place if isinstance(place, dict) else isinstance(key, int) and key < len(place)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 10**6, b"null", b"[]", b'{"made": 1}'])
def test_a_record_that_cannot_be_read_is_ignored_with_a_warning(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tuning.json").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert read_record(tmp_path / "tuning.json", Tuning) is None
    assert "is damaged or of another version, and will be replaced" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_stands_in_the_place_of_a_record_is_not_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "tuning.json"
    make_odd(path, kind)
    assert read_record(path, Tuning) is None
