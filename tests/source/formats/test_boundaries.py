"""Records end where the format's own reader sees them end, however the bytes come in blocks."""

from __future__ import annotations

import csv
import io
import itertools
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embedmill.base.config import RunConfig
from embedmill.source.formats.boundaries import CsvCutter, Cutter, Dialect, LineCutter, Oversize, records, spans
from embedmill.source.stream import ByteStream
from tests.support.corpora import Corpus

CSV_BYTES = st.lists(st.sampled_from([b"a", b'"', b",", b"\n", b"\r", b"\r\n", b'""', b',"', b'",', b"\xc3\xa9"]))
COMMAS = Dialect(delimiter=",", quote='"', escape="")


def ends(cutter: Cutter, data: bytes, cuts: list[int]) -> list[int]:
    """Record ends of `data` given in blocks that end at `cuts`, the file's own end included."""
    bounds = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    blocks = [data[first:last] for first, last in itertools.pairwise(bounds)]
    found = [int(end) for block in blocks for end in cutter.ends(block)]
    return found if not data or found[-1:] == [len(data)] else [*found, len(data)]


def ends_by_csv(data: bytes) -> list[int]:
    """Where Python's csv.reader has come to after each row."""
    position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        for line in io.TextIOWrapper(io.BytesIO(data), "latin-1", newline=""):
            position += len(line)
            yield line

    return [position for _ in csv.reader(lines())]


@given(data=CSV_BYTES.map(b"".join), cuts=st.lists(st.integers(0, 10**6), max_size=6))
@example(data=b'a"b\n"c\n', cuts=[])
@example(data=b'"a""\n"\n', cuts=[3])
@example(data=b"a\r\nb\rc", cuts=[2, 5])
@example(data=b'"a"\n"b', cuts=[3])
@example(data=b'a"b,"c""\nd"\ne\n', cuts=[])
@example(data=b'"a,"b"\nc\n', cuts=[2])
@settings(max_examples=500)
def test_csv_records_end_where_pythons_reader_ends_them(data: bytes, cuts: list[int]) -> None:
    assert ends(CsvCutter(COMMAS, 0), data, cuts) == ends_by_csv(data)


@given(data=st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b"\r"])).map(b"".join), cuts=st.lists(st.integers(0, 99)))
def test_lines_end_at_newlines_only(data: bytes, cuts: list[int]) -> None:
    lines = data.split(b"\n")
    sizes = [len(line) + 1 for line in lines[:-1]] + ([len(lines[-1])] if lines[-1] else [])
    assert ends(LineCutter(0), data, cuts) == np.cumsum(sizes, dtype=int).tolist()


@pytest.mark.parametrize("cutter", [LineCutter, lambda start: CsvCutter(COMMAS, start)])
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=CSV_BYTES.map(b"".join), block=st.integers(1, 9), span_rows=st.integers(1, 4))
def test_spans_and_records_cover_the_file_once(
    corpus: Corpus, cutter: Callable[[int], Cutter], data: bytes, block: int, span_rows: int
) -> None:
    path = corpus.write("a.jsonl", data)
    (file,) = corpus.job(path.name).files
    with closing(ByteStream(file, RunConfig())) as stream:
        found = list(spans(0, stream, cutter(0), block_bytes=block, span_rows=span_rows))
    with closing(ByteStream(file, RunConfig())) as stream:
        cut_out = list(records(stream, cutter(0), 10**6, block_bytes=block))
    marks = [0, *(int(mark) for span in found for mark in span.marks[1:])]
    assert all(span.marks.dtype == np.int64 and 1 < len(span.marks) <= span_rows + 1 for span in found)
    assert [span.first_row for span in found] == np.cumsum([0, *(len(span.marks) - 1 for span in found)])[:-1].tolist()
    assert marks == [0, *ends(cutter(0), data, [])]
    assert cut_out == [data[first:last] for first, last in itertools.pairwise(marks)]


def test_a_record_over_the_limit_is_not_held(corpus: Corpus) -> None:
    path = corpus.write("a.jsonl", b"short\n" + b"x" * 100_000 + b"\nafter\n")
    (file,) = corpus.job(path.name).files
    with closing(ByteStream(file, RunConfig())) as stream:
        found = list(records(stream, LineCutter(0), 2000, block_bytes=1000))
    assert found == [b"short\n", Oversize(b"x" * 1024, 100_001), b"after\n"]


def test_a_record_over_the_limit_takes_no_more_memory_than_the_limit(corpus: Corpus) -> None:
    path = corpus.write("a.jsonl", b"x" * 20_000_000)
    (file,) = corpus.job(path.name).files
    tracemalloc.start()
    with closing(ByteStream(file, RunConfig())) as stream:
        assert len(list(records(stream, LineCutter(0), 500_000, block_bytes=100_000))) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_a_record_of_exactly_the_limit_is_held(corpus: Corpus) -> None:
    path = corpus.write("a.jsonl", b"12345\n123456\n")
    (file,) = corpus.job(path.name).files
    with closing(ByteStream(file, RunConfig())) as stream:
        assert list(records(stream, LineCutter(0), 6)) == [b"12345\n", Oversize(b"123456\n", 7)]
