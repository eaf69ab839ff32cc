"""Parquet: rows come from row groups a few at a time, and damage is an error that names the file."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import encryption

from embedmill.base.errors import InputError
from embedmill.base.records import Documents
from embedmill.source import resolve
from embedmill.source.formats import parquet
from embedmill.source.formats.parquet import BATCH_ROWS, REPEATED_BYTES, spread
from embedmill.source.formats.parquet_schema import longest_row
from tests.support.corpora import Corpus, cut


def read(corpus: Corpus, content: dict[str, Any], **tables: dict[str, Any]) -> Documents:
    corpus.write_table("a.parquet", content)
    return corpus.job(**tables).read()


def reasons(found: Documents) -> list[tuple[int, str]]:
    return [(row.row, row.reason) for row in found.rejected]


def broken_strings(*values: bytes | None) -> pa.Array:
    """Strings that are not all valid UTF-8."""
    array = pa.array(values, pa.binary())
    return pa.Array.from_buffers(pa.string(), len(array), array.buffers(), array.null_count)


@pytest.mark.parametrize(
    "type", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
@pytest.mark.parametrize("dictionary", [True, False])
def test_every_kind_of_string_is_text(corpus: Corpus, type: pa.DataType, dictionary: bool) -> None:
    texts = ["one", "two é😀", None, "one", "a\0b"]
    plain = pa.array(texts, pa.string())
    column = plain.dictionary_encode() if pa.types.is_dictionary(type) else plain.cast(type)
    corpus.write_table("a.parquet", {"id": range(5), "text": column}, use_dictionary=dictionary)
    found = corpus.job().read()
    assert found.texts == ["one", "two é😀", "one", "a\0b"]
    assert reasons(found) == [(3, '"text" is null')]


@pytest.mark.parametrize(
    "type", [pa.int8(), pa.uint64(), pa.int64(), pa.string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_strings_and_integers_are_ids(corpus: Corpus, type: pa.DataType) -> None:
    ids = pa.array(["7", "8"]).dictionary_encode() if pa.types.is_dictionary(type) else pa.array(["7", "8"]).cast(type)
    assert read(corpus, {"id": ids, "text": ["a", "b"]}).ids == ["7", "8"]


def test_each_bad_row_is_set_aside_with_its_reason(corpus: Corpus) -> None:
    ids = ["1", "2", None, "", "5", "6"]
    found = read(corpus, {"id": ids, "text": [None, "", "c", "d", " \n", "fine"]})
    assert (found.ids, found.texts) == (["6"], ["fine"])
    assert reasons(found) == [
        (1, '"text" is null'),
        (2, '"text" is empty'),
        (3, '"id" is null; expected an id'),
        (4, '"id" is empty; expected an id'),
        (5, '"text" is only white space'),
    ]
    assert [(row.id, row.excerpt) for row in found.rejected] == [
        ("1", ""), ("2", ""), (None, "c"), (None, "d"), ("5", " \n")
    ]  # fmt: skip


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("type", [pa.string(), pa.large_string(), pa.string_view()])
def test_invalid_utf8_spoils_its_own_row_only(corpus: Corpus, type: pa.DataType, dictionary: bool) -> None:
    table = pa.table({
        "id": broken_strings(b"1", b"2\xff", b"3", b"4", b"5", b"6"),
        "text": broken_strings(b"one", b"two", b"\xed\xa0\x80", None, b"five", b"six").cast(type),
        "kind": broken_strings(b"a", b"b", None, b"d", b"\xff", b"f").cast(type),
        "tags": pa.ListArray.from_arrays([0, 1, 2, 3, 4, 5, 7], broken_strings(*[b"x"] * 6, b"\xff")),
    })  # fmt: skip
    corpus.write_table("a.parquet", table, use_dictionary=dictionary)
    found = corpus.job(columns={"carry": ["kind", "tags"]}).read()
    assert (found.ids, found.carried.to_pydict()) == (["1"], {"kind": ["a"], "tags": [["x"]]})
    assert reasons(found) == [
        (2, '"id" is not valid UTF-8'),
        (3, '"text" is not valid UTF-8'),
        (4, '"text" is null'),
        (5, '"kind" is not valid UTF-8'),
        (6, '"tags" is not valid UTF-8'),
    ]
    assert found.rejected[1].excerpt == "\ufffd" * 3


def test_a_text_over_the_limit_is_too_long(corpus: Corpus) -> None:
    found = read(corpus, {"text": ["é" * 20, "é" * 21]}, limits={"text_bytes": 40})
    assert found.ids == ["a.parquet:1"]
    assert reasons(found) == [(2, '"text" has 42 bytes; limits.text_bytes allows 40')]


@pytest.mark.parametrize(
    "type",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_a_text_over_the_limit_is_never_a_python_object(corpus: Corpus, type: pa.DataType) -> None:
    """Such a text may be as large as all memory: only its beginning leaves Arrow."""
    plain = pa.array(["é" * 20, None, "é" * 2_000_000, "x" * 41, "é" * 2_000_000, "end"])
    texts = plain.dictionary_encode() if pa.types.is_dictionary(type) else plain.cast(type)
    corpus.write_table("a.parquet", {"text": texts})
    tracemalloc.start()
    found = corpus.job(limits={"text_bytes": 40}).read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.ids, found.texts) == (["a.parquet:1", "a.parquet:6"], ["é" * 20, "end"])
    assert reasons(found) == [
        (2, '"text" is null'),
        (3, '"text" has 4,000,000 bytes; limits.text_bytes allows 40'),
        (4, '"text" has 41 bytes; limits.text_bytes allows 40'),
        (5, '"text" has 4,000,000 bytes; limits.text_bytes allows 40'),
    ]
    assert [rejected.excerpt for rejected in found.rejected] == ["", "é" * 200, "x" * 41, "é" * 200]
    assert peak < 2_000_000


def test_carried_columns_keep_their_types_and_rows(corpus: Corpus) -> None:
    carried = {
        "when": pa.array([1, 2, None], pa.timestamp("us", tz="UTC")),
        "tags": pa.array([["a"], [], None]),
        "meta": pa.array([{"x": 1}, None, {"x": 3}]),
        "kind": pa.array(["k", "l", "k"]).dictionary_encode(),
        "view": pa.array(["v", None, "a longer view"], pa.string_view()),
        "text": pa.array(["one", None, "three"]),
    }
    found = read(corpus, carried, columns={"carry": list(carried)})
    expected = {"kind": pa.string(), "view": pa.string()}
    assert {field.name: field.type for field in found.carried.schema} == {
        name: expected.get(name, array.type) for name, array in carried.items()
    }
    assert found.carried.to_pydict() == {name: array.to_pylist()[::2] for name, array in carried.items()}


def test_a_file_whose_columns_hold_only_nulls_has_null_rows(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", {"text": ["a"], "id": [1], "s": ["x"]})
    corpus.write_table("b.parquet", pa.table({"text": pa.nulls(1), "id": [2], "s": pa.nulls(1)}))
    corpus.write_table("c.parquet", pa.table({"text": ["c"], "id": pa.nulls(1), "s": pa.nulls(1)}))
    corpus.write_table("d.parquet", pa.table({"text": ["d"], "id": [4], "s": pa.nulls(1)}))
    found = corpus.job(columns={"carry": ["s"]}).read()
    assert (found.ids, found.carried.to_pydict()) == (["1", "4"], {"s": ["x", None]})
    assert [row.reason for row in found.rejected] == ['"text" is null', '"id" is null; expected an id']


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"body": ["a"], "id": [1]}, r"no column 'text'; the columns are 'body', 'id'; set columns\.text"),
        ({"txt": ["a"]}, r"did you mean 'txt'\?"),
        ({"text": [1]}, r"'text' is int64; expected strings, so convert it or change columns\.text"),
        ({"text": [["a"]]}, "'text' is list.*; expected strings"),
        ({"text": ["a"], "id": [[1]]}, r"'id' is list.*; expected single values.*columns\.id"),
        ({"text": ["a"], "id": [{"x": 1}]}, "'id' is struct.*; expected single values"),
    ],
)
def test_a_schema_that_does_not_fit_is_an_error(corpus: Corpus, table: dict[str, Any], message: str) -> None:
    corpus.write_table("a.parquet", table)
    with pytest.raises(InputError, match=message):
        corpus.job().spans()
    corpus.write_table("0.parquet", {"text": ["a"], "id": [1]})
    with pytest.raises(InputError, match=r"a\.parquet"):
        corpus.job().spans()


def test_a_column_that_is_there_twice_is_an_error(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]))
    with pytest.raises(InputError, match="the column 'text' is there twice"):
        corpus.job().spans()


def test_columns_whose_names_have_dots_are_not_taken_for_nested_ones(corpus: Corpus) -> None:
    table = {"text.b": [["wrong", "too"]], "text": ["right"], "a": [{"b": 1}], "a.b": ["x"]}
    found = read(corpus, table, columns={"carry": ["a", "a.b"]})
    assert (found.texts, found.carried.to_pydict()) == (["right"], {"a": [{"b": 1}], "a.b": ["x"]})


def test_the_survey_spreads_the_bytes_of_each_row_group(corpus: Corpus) -> None:
    path = corpus.write_table("a.parquet", {"text": [str(n) * 10 for n in range(10)]}, row_group_size=6)
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(group).column(0).total_uncompressed_size for group in range(2)]
    job = corpus.job()
    spans = list(parquet.survey(0, job.files[0], job.config, resolve(job.files, job.config), span_rows=4))
    assert [(span.first_row, len(span.marks) - 1) for span in spans] == [(0, 4), (4, 2), (6, 4)]
    marks = [0, *(int(mark) for span in spans for mark in span.marks[1:])]
    expected = [sizes[0] * n // 6 for n in range(7)] + [sizes[0] + sizes[1] * n // 4 for n in range(1, 5)]
    assert marks == expected


@given(size=st.integers(0, 2**45), rows=st.integers(1, 2**31), step=st.floats(0, 1))
def test_spreading_is_exact(size: int, rows: int, step: float) -> None:
    at = int(step * rows)
    assert spread(size, rows, np.array([0, at, rows])).tolist() == [0, size * at // rows, size]


def test_a_file_without_rows_has_none(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", {"text": pa.array([], pa.string())})
    assert corpus.job().spans() == []


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_file_is_an_error_that_names_it(corpus: Corpus, kept: int) -> None:
    path = corpus.write_table("a.parquet", {"text": ["a"] * 100})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        InputError, match=r"a\.parquet: truncated or damaged \(parquet\): .*; replace the file or leave"
    ):
        corpus.job().read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n', "holds no Parquet data; let its name end as its content is"),
        (b"ARROW1\0\0", "holds no Parquet data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS.*`git lfs pull`"),
        (b"PK\x03\x04zip", "holds a ZIP archive, not PARQUET; unpack it"),
    ],
)
def test_another_content_under_the_name_is_not_called_damage(corpus: Corpus, content: bytes, message: str) -> None:
    (corpus.folder / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.parquet: .*{message}"):
        corpus.job().spans()


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_an_encrypted_file_is_called_encrypted_not_damaged(corpus: Corpus, plaintext_footer: bool) -> None:
    class Keys(encryption.KmsClient):  # type: ignore[misc]
        def wrap_key(self, key: bytes, name: str) -> bytes:
            return base64.b64encode(key)

    keys = encryption.EncryptionConfiguration(
        footer_key="k", column_keys={"k": ["text"]}, plaintext_footer=plaintext_footer
    )
    factory = encryption.CryptoFactory(lambda _: Keys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), keys)
    corpus.write_table("a.parquet", {"text": ["a"]}, encryption_properties=properties)
    with pytest.raises(InputError, match=r"a\.parquet: is encrypted \(.*\); decrypt it first"):
        corpus.job().read()


def test_a_page_with_a_wrong_checksum_is_an_error_that_leaves_other_rows_readable(corpus: Corpus) -> None:
    texts = [f"text number {n}" for n in range(90)]
    path = corpus.write_table("a.parquet", {"text": texts}, row_group_size=30, use_dictionary=False, compression="none")
    path.write_bytes(path.read_bytes().replace(b"number 45", b"number 46"))
    job = corpus.job()
    shards = cut(job.spans(), [30, 60])
    with job.reader() as reader:
        assert reader.read(shards[0]).texts == texts[:30]
        for _ in range(2):
            with pytest.raises(InputError, match=r"a\.parquet: (truncated or damaged|changed)"):
                reader.read(shards[1])
        assert reader.read(shards[2]).texts == texts[60:]


def test_a_file_that_changed_since_the_survey_is_an_error(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", {"text": ["a"] * 100})
    job = corpus.job()
    shards = cut(job.spans(), [])
    for texts in (["a"] * 50, ["another text"] * 100):
        path = corpus.write_table("a.parquet", {"text": texts})
        with pytest.raises(InputError, match=r"a\.parquet: changed since the run was planned"):
            job.read_shards(shards)
    path.unlink()
    with pytest.raises(InputError, match=r"a\.parquet: cannot be opened"):
        job.reader()


@contextmanager
def batch_sizes() -> Iterator[list[int]]:
    """Rows per batch of each decoding of a row group; a single row is only looked at."""
    sizes: list[int] = []
    decode = pq.ParquetFile.iter_batches

    def noting(self: Any, batch_size: int, **options: Any) -> Any:
        sizes.extend([batch_size] if batch_size > 1 else [])
        return decode(self, batch_size, **options)

    with patch.object(pq.ParquetFile, "iter_batches", noting):
        yield sizes


def test_one_row_group_is_decoded_once_whatever_the_number_of_shards(corpus: Corpus) -> None:
    rows = 3 * BATCH_ROWS
    corpus.write_table("a.parquet", {"text": [str(n) for n in range(rows)]})
    job = corpus.job()
    shards = cut(job.spans(), range(100, rows, 100))
    with batch_sizes() as decoded:
        found = job.read_shards(shards)
    assert [text for read in found for text in read.texts] == [str(n) for n in range(rows)]
    assert decoded == [BATCH_ROWS]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 1, 0, 3]])
def test_shards_of_one_row_group_may_be_read_in_any_order(corpus: Corpus, order: list[int]) -> None:
    rows = 2 * BATCH_ROWS - 100
    corpus.write_table("a.parquet", {"text": [str(n) for n in range(4 * rows)]}, row_group_size=3 * rows - 10)
    job = corpus.job()
    shards = cut(job.spans(), [rows, 2 * rows, 3 * rows])
    texts = [read.texts for read in job.read_shards([shards[at] for at in order])]
    assert texts == [[str(n) for n in range(rows * at, rows * at + rows)] for at in order]


def test_batches_are_small_where_one_long_text_is_repeated(corpus: Corpus) -> None:
    long = "x" * 500_000
    path = corpus.write_table("a.parquet", {"text": [long] * 200 + ["short"] * 800})
    job = corpus.job()
    assert longest_row(job.files[0], pq.read_metadata(path), 0, 0, 0) == 500_000
    with batch_sizes() as decoded:
        texts = job.read().texts
    # Before, the dictionary was looked at.
    assert decoded[1:] == [REPEATED_BYTES // 500_000]
    assert texts == [long] * 200 + ["short"] * 800
    assert len({id(text) for text in texts}) == 2


def test_nothing_is_repeated_where_there_is_no_dictionary(corpus: Corpus) -> None:
    path = corpus.write_table("a.parquet", {"text": ["long" * 100] * 9}, use_dictionary=False)
    assert longest_row(corpus.job().files[0], pq.read_metadata(path), 0, 0, 0) == 0


@pytest.mark.parametrize(
    ("column", "longest"),
    [
        (pa.array([["a" * 900, "b"]] * 100), 1800),
        (pa.array([{"in": "a" * 900}] * 100), 900),
        (pa.array([[{"in": ["a" * 900] * 3}]] * 100), 2700),
        (pa.array([b"a" * 900] * 100), 900),
        (pa.array([1] * 100), 0),
    ],
    ids=["list", "struct", "nested", "binary", "numbers"],
)
def test_repeated_values_are_found_at_any_depth(corpus: Corpus, column: pa.Array, longest: int) -> None:
    path = corpus.write_table("a.parquet", {"text": ["a"] * 100, "carried": column})
    assert longest_row(corpus.job().files[0], pq.read_metadata(path), 0, 1, 0) == longest


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
def test_a_long_id_is_set_aside_with_its_size(corpus: Corpus, name: str) -> None:
    ids = ["good", "x" * 100, "ü" * 50, "y" * 99]
    if name == "a.parquet":
        corpus.write_table(name, {"id": pa.array(ids).dictionary_encode(), "text": ["a"] * 4})
    elif name == "a.csv":
        corpus.write(name, "id,text\n" + "".join(f"{id},a\n" for id in ids))
    else:
        corpus.write(name, "".join(f'{{"id":"{id}","text":"a"}}\n' for id in ids))
    found = corpus.job(limits={"id_bytes": 99}, columns={"id": "id"}).read()
    assert found.ids == ["good", "y" * 99]
    assert [row.reason for row in found.rejected] == ['"id" has 100 bytes; limits.id_bytes allows 99'] * 2
    assert [row.id for row in found.rejected] == [None, None]


def test_the_reason_of_a_duplicate_quotes_the_beginning_of_its_id(corpus: Corpus) -> None:
    corpus.write_table("a.parquet", {"id": ["x" * 50_000] * 3, "text": ["a"] * 3})
    found = corpus.job().read()
    assert [len(row.reason) < 300 for row in found.rejected] == [True, True]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
def test_more_carried_bytes_than_are_allowed_end_the_run(corpus: Corpus, name: str) -> None:
    rows = [{"id": str(number), "text": "a", "url": "u" * 1000} for number in range(1000)]
    if name == "a.parquet":
        corpus.write_table(name, pa.Table.from_pylist(rows))
    else:
        corpus.write(name, "".join(f"{json.dumps(row)}\n" for row in rows))
    job = corpus.job(columns={"carry": ["url"]}, limits={"carried_bytes": 500_000})
    with pytest.raises(InputError, match=r"carried columns of 1000 rows have more than the 500,000 bytes"):
        job.read()
    assert len(job.read_shards(cut(job.spans(), range(0, 1000, 100)))) == 10


def test_the_text_may_be_a_key_of_the_path(corpus: Corpus) -> None:
    corpus.write_table("text=hello/a.parquet", {"id": ["1", "2"]})
    assert corpus.job().read().texts == ["hello", "hello"]
