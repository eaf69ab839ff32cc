"""Any cut of an input into shards, read in any order, gives the same documents; every row is accounted for."""

from __future__ import annotations

import codecs
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.base.errors import ConservationError, InputError
from embedmill.base.records import Documents, Shard
from embedmill.source.compression import Members
from embedmill.source.formats import parquet
from tests.support.corpora import Corpus, cut

JSON_LINES = st.lists(
    st.sampled_from(
        [b'{"id": 1, "text": "a", "kind": "k"}', b'{"id": "\xc3\xa9", "text": "b"}', b'{"id": 3}', b"{", b"", b"\xff"]
    ),
    max_size=12,
)
CSV_RECORDS = st.lists(
    st.sampled_from([b"1,a,k", b'2,"two\nlines",', b'3,"""q""",k', b'4,5" disk,k', b"", b"6", b'"', b"7,\xff,k"]),
    max_size=12,
)
TEXTS = st.lists(st.sampled_from(["a", "b" * 50, "", None]), max_size=40)


@st.composite
def inputs(draw: st.DrawFn) -> dict[str, Any]:
    """Files by name: bytes, or (texts, rows per group) for Parquet."""
    files: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 3))):
        ending = draw(st.sampled_from(["jsonl", "csv", "parquet"]))
        packed = draw(st.sampled_from(["", ".gz", ".zst"])) if ending != "parquet" else ""
        end = draw(st.sampled_from([b"\n", b"\r\n"]))
        last = draw(st.sampled_from([b"", end]))
        if ending == "jsonl":
            files[f"{number}.jsonl{packed}"] = (
                end.join([b'{"id": 0, "text": "t", "kind": "k"}', *draw(JSON_LINES)]) + last
            )
        elif ending == "csv":
            mark = draw(st.sampled_from([b"", codecs.BOM_UTF8]))
            files[f"{number}.csv{packed}"] = mark + end.join([b"id,text,kind", *draw(CSV_RECORDS)]) + last
        else:
            files[f"{number}.parquet"] = (draw(TEXTS), draw(st.integers(1, 9)))
    return files


def write(corpus: Corpus, files: dict[str, Any]) -> None:
    for name, content in files.items():
        if isinstance(content, bytes):
            corpus.write(name, content)
        else:
            texts, rows = content
            columns = {"id": range(len(texts)), "text": pa.array(texts, pa.string()), "kind": ["k"] * len(texts)}
            table = pa.table({**columns, "kind": pa.array(columns["kind"], pa.string())})
            corpus.write_table(name, table, row_group_size=rows)


def merged(read: list[Documents]) -> dict[str, Any]:
    """The documents of shards in order, as one."""
    return {
        "ids": [id for documents in read for id in documents.ids],
        "texts": [text for documents in read for text in documents.texts],
        "kinds": [kind for documents in read for kind in documents.carried["kind"].to_pylist()],
        "rejected": [row for documents in read for row in documents.rejected],
        "skipped": sum(documents.rows_skipped for documents in read),
    }


@settings(max_examples=60, deadline=None)
@given(files=inputs(), places=st.lists(st.integers(1, 60), max_size=8), data=st.data())
def test_any_cut_read_in_any_order_gives_the_same_documents(
    files: dict[str, Any], places: list[int], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as constants:
        constants.setattr(parquet, "BATCH_ROWS", 4)
        corpus = Corpus(Path(folder))
        write(corpus, files)
        job = corpus.job(columns={"carry": ["kind"]}, rows={"duplicate_id": "keep"})
        spans = job.spans()
        whole = job.read_shards(cut(spans, []))
        shards = cut(spans, places)
        order = data.draw(st.permutations(range(len(shards))))
        read = dict(zip(order, job.read_shards([shards[at] for at in order]), strict=True))
        assert merged([read[at] for at in sorted(read)]) == merged(whole)
        assert all(len(d.ids) + len(d.rejected) + d.rows_skipped == d.rows_read for d in read.values())
        assert sum(d.rows_read for d in read.values()) == sum(len(span.marks) - 1 for span in spans)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", '{"id": 1, "text": "t"}\n{\n'), ("a.csv", 'id,text\n1,"t\n"\n2\n')]
)
def test_packed_files_read_as_plain_ones(corpus: Corpus, name: str, content: str, suffix: str) -> None:
    corpus.write(name, content)
    corpus.write(name + suffix, content)
    plain, packed = corpus.job(name).read(), corpus.job(name + suffix).read()
    assert (packed.ids, packed.texts) == (plain.ids, plain.texts)
    assert [(row.row, row.reason) for row in packed.rejected] == [(row.row, row.reason) for row in plain.rejected]


def bad_rows(corpus: Corpus, **rows: str) -> Documents:
    lines = ['{"id": 1, "text": "fine"}', '{"id": 2}', '{"id": 3, "text": ""}', '{"id": 4, "text": 4}', "{"]
    lines += ['{"id": 1, "text": "again"}', '{"id": 7, "text": "' + "x" * 50 + '"}']
    corpus.write("a.jsonl", "\n".join(lines) + "\n")
    return corpus.job(rows=rows, limits={"text_bytes": 40}).read()


KINDS = ["null_text", "empty_text", "wrong_type", "malformed", "duplicate_id", "too_long"]


@pytest.mark.parametrize(("kind", "row"), list(zip(KINDS, range(2, 8), strict=True)))
def test_each_policy_decides_for_its_own_rows(corpus: Corpus, kind: str, row: int) -> None:
    assert [found.row for found in bad_rows(corpus).rejected] == [2, 3, 4, 5, 6, 7]
    skipped = bad_rows(corpus, **{kind: "skip"})
    assert (skipped.rows_skipped, row in {found.row for found in skipped.rejected}) == (1, False)
    with pytest.raises(InputError, match=rf'a\.jsonl, row {row}: .*; mend it, or set rows\.{kind} = "quarantine"'):
        bad_rows(corpus, **{kind: "fail"})


def test_an_empty_text_may_be_embedded(corpus: Corpus) -> None:
    corpus.write("a.csv", 'text\n" "\n""\n')
    corpus.write_table("b.parquet", {"text": ["", "\t"]})
    assert corpus.job(rows={"empty_text": "embed"}).read().texts == [" ", "", "", "\t"]


def test_a_failure_names_the_row_of_a_table(corpus: Corpus) -> None:
    path = corpus.write_table("a.parquet", {"text": ["a", None]})
    with pytest.raises(InputError) as caught:
        corpus.job(rows={"null_text": "fail"}).read()
    assert str(caught.value).startswith(f'{path}, row 2: "text" is null; ')


def test_an_id_that_occurs_again_is_a_duplicate_across_files_and_shards(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"id": "x", "text": "a"}\n{"id": "y", "text": ""}\n{"id": "x", "text": "b", "kind": 1}\n')
    corpus.write("b.csv", "id,text,kind\nx,c,\ny,d,k\n")
    job = corpus.job(columns={"carry": ["kind"]}, rows={"empty_text": "skip"})
    read = merged(job.read_shards(cut(job.spans(), [1, 2, 3, 4])))
    assert (read["texts"], read["kinds"]) == (["a", "d"], [None, "k"])
    assert [(row.file, row.row, row.id, row.reason, row.excerpt) for row in read["rejected"]] == [
        ("a.jsonl", 3, "x", 'the id "x" occurs before in this input', "b"),
        ("b.csv", 1, "x", 'the id "x" occurs before in this input', "c"),
    ]
    assert merged([job.read()]) == read


def test_a_resume_remembers_the_ids_of_committed_shards(corpus: Corpus) -> None:
    corpus.write("a.csv", "id,text\n1,a\n2,b\n1,c\n2,d\n3,e\n")
    job = corpus.job()
    first, second = cut(job.spans(), [2])
    with job.reader() as reader:
        reader.remember(["1", "2"])
        assert reader.read(second).ids == ["3"]
    assert merged_ids(job.read_shards([first, second])) == ["1", "2", "3"]


def merged_ids(read: list[Documents]) -> list[str]:
    return [id for documents in read for id in documents.ids]


def test_kept_duplicates_are_not_looked_for(corpus: Corpus) -> None:
    corpus.write("a.csv", "id,text\n1,a\n1,b\n")
    assert corpus.job(rows={"duplicate_id": "keep"}).read().ids == ["1", "1"]


def test_consecutive_shards_of_a_packed_file_decompress_it_once(corpus: Corpus) -> None:
    corpus.write("a.jsonl.gz", "".join(f'{{"id": {n}, "text": "t"}}\n' for n in range(100)))
    job = corpus.job()
    shards = cut(job.spans(), range(10, 100, 10))
    with (
        job.reader() as reader,
        patch.object(Members, "seek", autospec=True, side_effect=Members.seek) as rewound,
    ):
        first = reader.read(shards[0])
        times = rewound.call_count
        assert merged_ids([first, *(reader.read(shard) for shard in shards[1:])]) == [str(n) for n in range(100)]
        assert rewound.call_count == times
        reader.read(shards[0])
        assert rewound.call_count > times


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_text_file_that_changed_since_the_survey_is_an_error(corpus: Corpus, name: str) -> None:
    corpus.write(name, "id,text\n1,aaaa\n2,b\n")
    job = corpus.job(columns={"id": "id"}) if name.endswith("csv") else corpus.job()
    shards = cut(job.spans(), [])
    corpus.write(name, "id,text\n1,aa\nx\n2,b\n")
    with pytest.raises(InputError, match=rf"{name}: changed since the run was planned; start again"):
        job.read_shards(shards)


class MiscountedShard(Shard, frozen=True, kw_only=True):
    """A shard that claims a row too many."""

    @property
    def rows(self) -> int:
        return super().rows + 1


def test_rows_that_went_missing_are_a_defect(corpus: Corpus) -> None:
    corpus.write("a.csv", "id,text\n1,a\n")
    job = corpus.job()
    (shard,) = cut(job.spans(), [])
    with pytest.raises(ConservationError, match="shard 0 has 2 rows, but gave 1"):
        job.read_shards([MiscountedShard(ordinal=0, pieces=shard.pieces)])


def test_an_excerpt_is_short_and_always_printable_as_utf8(corpus: Corpus) -> None:
    corpus.write("a.jsonl", b'{"text": "t"}\n{"\xff' + "é".encode() * 500 + b"\n")
    (row,) = corpus.job().read().rejected
    assert row.excerpt == '{"\ufffd' + "é" * 197
    assert msgspec.json.decode(msgspec.json.encode(row))["row"] == 2


@pytest.mark.parametrize("marks", range(4))
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", '{"id": 1, "text": "t"}\n'), ("a.json", '[{"id": 1, "text": "t"}]'), ("a.csv", "id,text\n1,t\n")],
)
def test_byte_order_marks_are_no_part_of_the_first_column(
    corpus: Corpus, name: str, content: str, suffix: str, marks: int
) -> None:
    corpus.write(name + suffix, codecs.BOM_UTF8 * marks + content.encode())
    read = corpus.job().read()
    assert (read.ids, read.texts, read.rejected) == (["1"], ["t"], [])
