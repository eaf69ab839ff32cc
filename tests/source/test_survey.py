"""Before reading: the columns are found, and every file is checked for them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from embedmill.base.errors import InputError
from embedmill.source import ResolvedColumns, resolve, survey
from tests.support.corpora import Corpus


def resolved(corpus: Corpus, **tables: Any) -> ResolvedColumns:
    job = corpus.job(**tables)
    return resolve(job.files, job.config)


def test_a_column_named_id_is_the_id_where_the_first_file_has_one(corpus: Corpus) -> None:
    corpus.write("a.csv", "text,id\nt,1\n")
    assert resolved(corpus).id == "id"
    corpus.write("0.csv", "text\nt\n")
    assert resolved(corpus).id is None


def test_the_id_column_that_is_set_is_used(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"id": 1, "key": "k", "text": "t"}\n')
    assert resolved(corpus, columns={"id": "key"}).id == "key"
    assert corpus.job(columns={"id": "key"}).read().ids == ["k"]


def test_files_without_content_do_not_decide(corpus: Corpus) -> None:
    corpus.write("a.jsonl", "")
    corpus.write("b.csv.gz", "")
    corpus.write("c.jsonl", "\n\nnot json\n")
    corpus.write("d.csv", "text,id\nt,1\n")
    assert resolved(corpus).id == "id"
    assert corpus.job().read().ids == ["1"]


def test_an_input_without_any_content_has_no_rows(corpus: Corpus) -> None:
    corpus.write("a.jsonl", "")
    read = corpus.job(columns={"carry": ["n"], "types": {"n": "int64"}}).read()
    assert (read.rows_read, read.ids, read.carried.schema) == (0, [], pa.schema([("n", pa.int64())]))


@pytest.mark.parametrize("column", ["text", "id", "carry"])
def test_a_missing_column_is_named_with_what_sets_it(corpus: Corpus, column: str) -> None:
    setting = {"text": "text", "id": "id", "carry": "carry"}[column]
    value: Any = ["boddy"] if column == "carry" else "boddy"
    for name, content in [("a.csv", "text,body\n"), ("b.jsonl", '{"text": "t", "body": "b"}\n')]:
        path = corpus.write(name, content)
        with pytest.raises(InputError) as caught:
            resolved(corpus, columns={column: value})
        assert f"{path}: there is no column 'boddy'" in str(caught.value)
        assert "the columns are 'text', 'body'" in str(caught.value)
        assert f"set columns.{setting}" in str(caught.value)
        assert "did you mean 'body'?" in str(caught.value)
        path.unlink()


def test_a_key_that_only_some_lines_have_is_a_column(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"text": "one"}\n{"text": "two", "kind": "k"}\n')
    assert corpus.job(columns={"carry": ["kind"]}).read().carried["kind"].to_pylist() == [None, "k"]


def test_a_key_may_appear_first_in_a_later_file_of_lines(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"text": "one"}\n')
    corpus.write("b.jsonl", '{"text": "two", "kind": "k", "id": 1}\n')
    assert resolved(corpus, columns={"carry": ["kind"]}).id is None


def test_only_the_first_thousand_lines_are_looked_at(corpus: Corpus) -> None:
    lines = ['{"text": "t"}\n'] * 1000
    corpus.write("a.jsonl", "".join([*lines[1:], '{"kind": 1}\n']))
    assert resolved(corpus, columns={"carry": ["kind"]}).carried.names == ["kind"]
    corpus.write("a.jsonl", "".join([*lines, '{"kind": 1}\n']))
    with pytest.raises(InputError, match="no column 'kind' in the first rows"):
        resolved(corpus, columns={"carry": ["kind"]})


@pytest.mark.parametrize(("name", "content"), [("b.jsonl", '{"text": "t", "n": 1}\n'), ("b.csv", "text,n\nt,1\n")])
def test_formats_may_mix_where_the_carried_types_agree(corpus: Corpus, name: str, content: str) -> None:
    corpus.write_table("a.parquet", {"text": ["a"], "n": [7]})
    corpus.write(name, content)
    columns = {"carry": ["n"], "types": {"n": "int64"}}
    assert corpus.job(columns=columns).read().carried["n"].to_pylist() == [7, 1]
    with pytest.raises(
        InputError,
        match=rf"{name}: the carried column 'n' is string here, but int64 in an earlier file.*`columns\.types`",
    ):
        corpus.job(columns={"carry": ["n"]}).spans()


def test_the_survey_goes_file_by_file(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"text": "t"}\n\n')
    corpus.write("b.csv", "text\none\ntwo\n")
    corpus.write_table("c.parquet", {"text": ["a", "b", "c"]})
    spans = corpus.job().spans()
    assert [(span.file, span.first_row, len(span.marks) - 1) for span in spans] == [(0, 0, 2), (1, 0, 2), (2, 0, 3)]
    assert spans[0].marks.tolist() == [0, 14, 15]
    assert spans[1].marks.tolist() == [5, 9, 13]


def test_the_survey_does_not_wait_for_the_last_file(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"text": "t"}\n')
    (corpus.folder / "b.parquet").write_bytes(b"")
    job = corpus.job()
    spans = survey(job.files, job.config, resolve(job.files, job.config))
    assert next(spans).file == 0
    with pytest.raises(InputError, match=r"b\.parquet: truncated or damaged \(parquet\): Parquet file size is 0 bytes"):
        next(spans)
