"""The bytes of a file are the same, packed or plain, in order or by position."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.base.errors import InputError
from embedmill.source.stream import ByteStream, translated
from tests.support.corpora import Corpus, packed

DATA = bytes(range(97, 123)) * 1000


@contextmanager
def opened(path: Path) -> Iterator[ByteStream]:
    (file,) = Corpus(path.parent).job(path.name).files
    with closing(ByteStream(file)) as stream:
        yield stream


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, len(DATA)), st.integers(0, 3000))))
def test_any_order_of_seeks_and_reads_gives_what_the_file_holds(
    corpus: Corpus, name: str, steps: list[tuple[int, int]]
) -> None:
    with opened(corpus.write(name, DATA)) as stream:
        for position, size in steps:
            stream.seek(position)
            assert stream.read(size) == DATA[position : position + size]
            assert stream.position == min(position + size, len(DATA))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_members_and_frames_one_after_the_other_are_read_as_one(corpus: Corpus, suffix: str) -> None:
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(packed(DATA, suffix) + packed(DATA[:7], suffix))
    with opened(path) as stream:
        assert stream.read(10**6) == DATA + DATA[:7]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
def test_a_truncated_file_is_an_error_that_names_it(corpus: Corpus, suffix: str, kept: float) -> None:
    whole = packed(DATA, suffix)
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(whole[: int(len(whole) * kept)])
    kind = {".gz": "gzip", ".zst": "zstd"}[suffix]
    message = rf"a\.jsonl{suffix}: truncated or damaged \({kind}\): .*; replace the file or leave it out"
    with opened(path) as stream, pytest.raises(InputError, match=message):
        stream.read(10**6)


def test_a_flipped_bit_in_gzip_is_an_error(corpus: Corpus) -> None:
    whole = bytearray(gzip.compress(DATA))
    whole[-6] ^= 1
    path = corpus.folder / "a.jsonl.gz"
    path.write_bytes(bytes(whole))
    with opened(path) as stream, pytest.raises(InputError, match="truncated or damaged"):
        stream.read(10**6)


def test_after_a_failed_read_a_seek_starts_afresh(corpus: Corpus) -> None:
    path = corpus.folder / "a.jsonl.gz"
    path.write_bytes(gzip.compress(DATA)[:-4])
    with opened(path) as stream:
        with pytest.raises(InputError):
            stream.read(10**6)
        stream.seek(5)
        assert stream.read(3) == DATA[5:8]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_an_empty_file_has_no_bytes(corpus: Corpus, suffix: str) -> None:
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(b"")
    with opened(path) as stream:
        assert stream.read(10) == b""


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (gzip.compress(b"x"), "holds gzip data, not JSONL in UTF-8; let its name end in .gz"),
        (packed(b"x", ".zst"), "holds zstd data"),
        ("x".encode("utf-16"), "holds UTF-16 text.*save it as UTF-8"),
    ],
)
def test_a_file_of_another_kind_is_refused(corpus: Corpus, head: bytes, message: str) -> None:
    path = corpus.folder / "a.jsonl"
    path.write_bytes(head)
    with opened(path) as stream, pytest.raises(InputError, match=message):
        stream.read(10)


def test_a_file_of_another_size_than_listed_is_refused(corpus: Corpus) -> None:
    path = corpus.write("a.jsonl", "x")
    (file,) = corpus.job("a.jsonl").files
    path.write_text("xy")
    with pytest.raises(InputError, match=r"a\.jsonl: changed since the run was planned"):
        ByteStream(file)


def test_a_file_that_is_gone_is_named(corpus: Corpus) -> None:
    path = corpus.write("a.jsonl", "x")
    (file,) = corpus.job("a.jsonl").files
    path.unlink()
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be opened: No such file"):
        ByteStream(file)


def test_a_value_for_which_there_is_no_memory_names_the_file(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", {"text": ["a"]})
    (file,) = corpus.job().files
    message = r"a\.parquet: unpacking it needs more memory than there is \(out of memory\)"
    with pytest.raises(InputError, match=message), translated(file):
        raise MemoryError


def test_a_seek_past_the_end_of_a_packed_file_is_an_error(corpus: Corpus) -> None:
    with opened(corpus.write("a.jsonl.gz", DATA)) as stream, pytest.raises(InputError, match="changed"):
        stream.seek(len(DATA) + 1)
