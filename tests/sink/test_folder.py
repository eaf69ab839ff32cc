"""Reading an output folder: entries, manifest, totals, conservation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.base.errors import ConservationError, Corrupt
from embedmill.base.files.sealed import seal
from embedmill.base.records import Entry, Piece, Shard
from embedmill.sink.folder import OutputJob, check_conservation, read_entries, read_manifest, total
from embedmill.sink.ledger import Ledger
from tests.support.outputs import make_entry, make_job, make_lines, write_output


def test_an_unreadable_manifest_is_corrupt(tmp_path: Path) -> None:
    write_output(tmp_path / "out")
    (tmp_path / "out" / "_manifest.json").write_text("{")
    with pytest.raises(Corrupt, match=r"_manifest\.json cannot be read"):
        read_manifest(tmp_path / "out")


def test_entries_are_in_order_beyond_five_digits(tmp_path: Path) -> None:
    (tmp_path / "_ledger").mkdir()
    for ordinal in (100_000, 99_999):
        (tmp_path / "_ledger" / f"{ordinal:06d}.json").write_bytes(seal(make_entry(ordinal))[1])
    assert [entry.ordinal for entry in read_entries(tmp_path)] == [99_999, 100_000]


@pytest.mark.parametrize(
    ("shards", "last"), [(1, "00000"), (100_000, "99999"), (100_001, "100000"), (10**6 + 1, "1000000")]
)
def test_names_sort_in_the_order_of_the_plan(shards: int, last: str) -> None:
    job = make_job(1)
    job = msgspec.structs.replace(job, shards=job.shards * shards)
    assert job.part(shards - 1) == f"part-{last}.parquet"
    ordinals = [0, 1, 9, shards // 2, shards - 2, shards - 1]
    names = [job.part(ordinal) for ordinal in ordinals if 0 <= ordinal < shards]
    assert len({len(name) for name in names}) == 1


counts = st.integers(0, 2**40)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
pieces = st.lists(
    st.builds(Piece, file=st.integers(0, 9), first_row=counts, rows=counts, start=counts, stop=counts), max_size=3
)


@st.composite
def sound_entries(draw: st.DrawFn) -> Entry:
    """Draw entries that account for every row."""
    parts = tuple(draw(pieces))
    rows = sum(piece.rows for piece in parts)
    quarantined = draw(st.integers(0, rows))
    skipped = draw(st.integers(0, rows - quarantined))
    return Entry(
        ordinal=0,
        file="part-00000.parquet",
        pieces=parts,
        rows_read=rows,
        rows_written=rows - quarantined - skipped,
        rows_quarantined=quarantined,
        rows_skipped=skipped,
        vectors=draw(counts),
        tokens=draw(counts),
        padded_tokens=draw(counts),
        truncated=draw(counts),
        bytes=0,
        sha256="",
        quarantine_sha256="",
        identity=draw(texts),
    )


@settings(max_examples=40, deadline=None)
@given(entry=sound_entries(), data=st.binary(max_size=50), rejected=st.integers(0, 2))
def test_an_entry_survives_the_way_to_the_disk_and_back(entry: Entry, data: bytes, rejected: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shard = Shard(ordinal=0, pieces=entry.pieces)
        with Ledger(Path(folder) / "out") as ledger:
            ledger.begin(OutputJob(fingerprint={"model.identity": entry.identity}, shards=[shard]))
            committed = ledger.commit(entry, memoryview(data), make_lines(rejected))
        with Ledger(Path(folder) / "out") as ledger:
            assert ledger.entries == {0: committed}
            assert ledger.pending() == []


@given(entry=sound_entries(), lost=st.integers(1, 9))
def test_conservation_holds_for_sound_entries_and_for_no_others(entry: Entry, lost: int) -> None:
    check_conservation(entry, planned=entry.rows_read)
    for field in ("rows_read", "rows_written", "rows_quarantined", "rows_skipped"):
        changed = msgspec.structs.replace(entry, **{field: getattr(entry, field) + lost})
        with pytest.raises(ConservationError):
            check_conservation(changed, planned=entry.rows_read)


@given(st.lists(sound_entries(), max_size=5))
def test_totals_are_the_sums_of_the_entries(entries: list[Entry]) -> None:
    totals = total(entries)
    assert totals.shards == len(entries)
    assert totals.rows_read == sum(entry.rows_read for entry in entries)
    assert totals.vectors == sum(entry.vectors for entry in entries)
    check_conservation(totals, planned=sum(entry.rows_read for entry in entries))
