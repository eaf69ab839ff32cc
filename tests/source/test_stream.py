"""The bytes of a file are the same, packed or plain, in order or by position."""

from __future__ import annotations

import bz2
import gzip
import lzma
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.base.config import RunConfig
from embedmill.base.errors import ConfigError, InputError, Stopped
from embedmill.base.signals import StopSignals
from embedmill.source.compression import COMPRESSIONS, Members
from embedmill.source.stream import ByteStream, translated
from tests.support.corpora import Corpus, packed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

DATA = bytes(range(97, 123)) * 1000


@contextmanager
def opened(path: Path, **tables: Any) -> Iterator[ByteStream]:
    job = Corpus(path.parent).job(path.name, **tables)
    with closing(ByteStream(job.files[0], job.config)) as stream:
        yield stream


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.jsonl.bz2", "a.jsonl.xz"])
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


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_members_and_frames_one_after_the_other_are_read_as_one(corpus: Corpus, suffix: str) -> None:
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(packed(DATA, suffix) + packed(DATA[:7], suffix))
    with opened(path) as stream:
        assert stream.read(10**6) == DATA + DATA[:7]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
def test_a_truncated_file_is_an_error_that_names_it(corpus: Corpus, suffix: str, kept: float) -> None:
    whole = packed(DATA, suffix)
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(whole[: int(len(whole) * kept)])
    kind = COMPRESSIONS[suffix]
    message = rf"a\.jsonl{suffix}: truncated or damaged \({kind}\): .*; replace the file or leave it out"
    with pytest.raises(InputError, match=message), opened(path) as stream:
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


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".bz2", ".xz"])
def test_an_empty_text_has_no_bytes(corpus: Corpus, suffix: str) -> None:
    with opened(corpus.write(f"a.jsonl{suffix}", b"")) as stream:
        assert stream.read(10) == b""


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_a_packed_file_of_no_bytes_is_an_error(corpus: Corpus, suffix: str) -> None:
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(b"")
    with (
        pytest.raises(InputError, match=r"has no bytes, so it is no \w+ file; replace it or leave it out"),
        opened(path),
    ):
        pass


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_padding_between_members_is_skipped_and_anything_else_is_damage(corpus: Corpus, suffix: str) -> None:
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(packed(DATA, suffix) + bytes(300_004) + packed(DATA[:9], suffix) + bytes(4))
    with opened(path) as stream:
        assert stream.read(10**6) == DATA + DATA[:9]
    for behind in (b"x", b"\0\0\0\0more", b"Y" + packed(DATA, suffix)[1:]):
        path.write_bytes(packed(DATA, suffix) + behind)
        with opened(path) as stream, pytest.raises(InputError, match="truncated or damaged"):
            stream.read(10**6)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_any_beginning_of_a_packed_file_is_damage_or_nothing_else(corpus: Corpus, suffix: str) -> None:
    whole = packed(DATA, suffix)
    path = corpus.folder / f"a.jsonl{suffix}"
    for kept in range(1, min(len(whole), 60)):
        path.write_bytes(whole[:kept])
        with pytest.raises(InputError, match=r"truncated or damaged|holds no"), opened(path) as stream:
            stream.read(10**6)


@pytest.mark.parametrize("encoding", ["utf-16", "UTF_16", "utf-32", "punycode", "idna", "undefined"])
@pytest.mark.parametrize("content", ["id,text\n1,a\n", "x", "idé\n"])
def test_an_encoding_that_cannot_be_read_is_refused(corpus: Corpus, encoding: str, content: str) -> None:
    path = corpus.write("a.csv", content)
    message = r"a\.csv: there is no byte order mark; set input.encoding|`input.encoding` is"
    with pytest.raises((InputError, ConfigError), match=message), opened(path, input={"encoding": encoding}) as stream:
        stream.read(10)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ".xz"])
def test_a_name_that_is_not_true_is_told_as_that(corpus: Corpus, suffix: str) -> None:
    path = corpus.folder / f"a.jsonl{suffix}"
    path.write_bytes(b'{"text": "plain"}\n')
    with pytest.raises(InputError, match=r"holds no \w+ data; let its name end as its content is"), opened(path):
        pass


def test_frames_to_be_skipped_come_before_zstd_data(corpus: Corpus) -> None:
    path = corpus.folder / "a.jsonl.zst"
    path.write_bytes(b"\x50\x2a\x4d\x18\x02\0\0\0xy" + packed(DATA, ".zst"))
    with opened(path) as stream:
        assert stream.read(10**6) == DATA


def test_a_large_window_of_zstd_names_the_option_that_allows_it(corpus: Corpus) -> None:
    options: dict[int, int] = {
        zstd.CompressionParameter.window_log: 28,
        zstd.CompressionParameter.enable_long_distance_matching: 1,
    }
    path = corpus.folder / "a.jsonl.zst"
    with zstd.open(path, "wb", options=options) as file:
        file.write(DATA)
        file.flush()
    with pytest.raises(InputError, match=r"zstd window of 268,435,456 bytes.*window_log = 28, or"), opened(path):
        pass
    with opened(path, limits={"window_log": 28}) as stream:
        assert stream.read(10**6) == DATA


def test_a_large_dictionary_of_xz_names_the_option_that_allows_it(corpus: Corpus) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 28}]
    path = corpus.folder / "a.jsonl.xz"
    path.write_bytes(lzma.compress(DATA, filters=filters))
    with pytest.raises(InputError, match=r"xz dictionary.*limits.window_log = 27 allows.*`xz -9`"), opened(path):
        pass
    with opened(path, limits={"window_log": 28}) as stream:
        assert stream.read(10**6) == DATA


ENCODED = "id,text\n1,café “quoted” €\n"


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig", "utf-8"])
def test_a_byte_order_mark_tells_the_encoding(corpus: Corpus, encoding: str, suffix: str) -> None:
    with opened(corpus.write(f"a.csv{suffix}", ENCODED.encode(encoding))) as stream:
        assert stream.read(10**6).decode("utf-8-sig") == ENCODED


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16-le", "utf-16-be", "utf_32_be", "gb18030", "utf-7"])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 1900), st.integers(0, 300)), max_size=5))
def test_a_named_encoding_is_read_as_utf8_by_position(
    corpus: Corpus, encoding: str, steps: list[tuple[int, int]]
) -> None:
    path = corpus.write("a.csv", (ENCODED * 60).encode(encoding))
    whole = (ENCODED * 60).encode()
    with opened(path, input={"encoding": encoding}) as stream:
        for position, size in steps:
            stream.seek(position)
            assert stream.read(size) == whole[position : position + size]


@pytest.mark.parametrize("name", ["rot13", "base64", "utf-9", "", "a\0b"])
def test_what_is_no_text_encoding_is_a_config_error(corpus: Corpus, name: str) -> None:
    path = corpus.write("a.csv", ENCODED)
    message = r"`input.encoding` is .*name one as Python does"
    with pytest.raises(ConfigError, match=message), opened(path, input={"encoding": name}):
        pass


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (gzip.compress(b"x", mtime=0), "holds gzip data, not JSONL; let its name end in .gz"),
        (packed(b"x", ".zst"), "holds zstd data"),
        (packed(b"x", ".bz2"), "holds bzip2 data"),
        (packed(b"x", ".xz"), "holds xz data"),
        (b"PK\x03\x04...", "holds a ZIP archive, .*; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "holds a pointer of Git LFS.*`git lfs pull`"),
        ("a,b\n1,twenty".encode("utf-16-le"), 'holds UTF-16 .*set input.encoding = "utf-16-le"'),
        ("a,b\n1,twenty".encode("utf-16-be"), 'set input.encoding = "utf-16-be"'),
        ("a,b\n1,twenty".encode("utf-32-le"), 'holds UTF-32 .*set input.encoding = "utf-32-le"'),
        ("a,b\n1,twenty".encode("utf-32-be"), 'set input.encoding = "utf-32-be"'),
    ],
)
def test_a_file_of_another_kind_is_refused(corpus: Corpus, head: bytes, message: str) -> None:
    path = corpus.folder / "a.jsonl"
    path.write_bytes(head)
    with pytest.raises(InputError, match=message), opened(path):
        pass


def test_a_file_of_another_size_than_listed_is_refused(corpus: Corpus) -> None:
    path = corpus.write("a.jsonl", "x")
    (file,) = corpus.job("a.jsonl").files
    path.write_text("xy")
    with pytest.raises(InputError, match=r"a\.jsonl: changed since the run was planned"):
        ByteStream(file, RunConfig())


def test_a_file_that_is_gone_is_named(corpus: Corpus) -> None:
    path = corpus.write("a.jsonl", "x")
    (file,) = corpus.job("a.jsonl").files
    path.unlink()
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be opened: "):
        ByteStream(file, RunConfig())


def test_a_value_for_which_there_is_no_memory_names_the_file(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", {"text": ["a"]})
    (file,) = corpus.job().files
    message = r"a\.parquet: unpacking it needs more memory than there is \(out of memory\)"
    with pytest.raises(InputError, match=message), translated(file):
        raise MemoryError


def test_a_seek_past_the_end_of_a_packed_file_is_an_error(corpus: Corpus) -> None:
    with opened(corpus.write("a.jsonl.gz", DATA)) as stream, pytest.raises(InputError, match="changed"):
        stream.seek(len(DATA) + 1)


def test_a_stop_among_members_without_content_does_not_wait_for_the_last(corpus: Corpus) -> None:
    path = corpus.folder / "a.jsonl.bz2"
    path.write_bytes(bz2.compress(b"") * 50)
    made: list[object] = []

    def make() -> bz2.BZ2Decompressor:
        made.append(None)
        if len(made) == 3:
            signal.raise_signal(signal.SIGINT)
        return bz2.BZ2Decompressor()

    before = signal.getsignal(signal.SIGINT)
    try:
        StopSignals(lambda signum: Stopped(signum.name, signum=signum), signal.SIGINT)
        with pytest.raises(Stopped), closing(Members(str(path), make)) as members:
            members.read(100)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(made) == 3
