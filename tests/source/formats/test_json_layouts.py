"""JSON that is no lines: arrays and objects in a row give the rows that Python's own reader finds."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from embedmill.base.errors import InputError
from embedmill.source.formats.boundaries import JsonCutter
from tests.support.corpora import Corpus, cut

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.sampled_from('a"\\{}[],\n é'), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('k"{}'), max_size=2), inner),
    max_leaves=6,
)
OBJECTS = st.lists(st.fixed_dictionaries({"text": st.text(min_size=1), "other": VALUES}), min_size=1, max_size=5)
# Ways to write the same objects: (before all, between two, after all, indentation).
WAYS = {
    "array": ("[", ",", "]", None),
    "array by line": ("[\n", ",\n", "\n]\n", None),
    "pretty array": ("\n [ ", " , ", " ]", 2),
    "objects in a row": ("", "", "", None),
    "pretty objects": ("", "\n", "\n", 4),
    "pretty objects after blank lines": ("\n\n", "\r\n\r\n", "", 1),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ending", ["json", "jsonl.gz"])
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects=OBJECTS, ascii=st.booleans())
def test_every_way_to_write_objects_is_read(
    corpus: Corpus, way: str, ending: str, objects: list[dict[str, Any]], ascii: bool
) -> None:
    before, between, after, indent = WAYS[way]
    rows = [json.dumps(row, ensure_ascii=ascii, indent=indent) for row in objects]
    corpus.write(f"a.{ending}", (before + between.join(rows) + after).encode("utf-8", "surrogatepass"))
    read = corpus.job(f"a.{ending}", columns={"carry": ["other"]}, rows={"empty_text": "embed"}).read()
    assert read.texts == [row["text"] for row in objects]
    pairs = zip(read.carried["other"].to_pylist(), [row["other"] for row in objects], strict=True)
    assert all(value in (cell, json.loads(cell or "null")) for cell, value in pairs if not isinstance(value, str))
    assert (read.rows_read, read.rejected) == (len(objects), [])


@given(
    objects=st.lists(st.dictionaries(st.text(st.sampled_from('k"\\{}[],'), max_size=3), VALUES), max_size=4),
    cuts=st.lists(st.integers(0, 10**6), max_size=6),
    in_array=st.booleans(),
)
@example(objects=[{"\\": "\\"}, {}], cuts=[2, 3, 4, 5, 6], in_array=True)
def test_values_end_where_they_end_however_the_bytes_come(
    objects: list[dict[str, Any]], cuts: list[int], in_array: bool
) -> None:
    rows = [json.dumps(row) for row in objects]
    data = ((",".join(rows) + "]") if in_array else "\n".join(rows)).encode()
    bounds = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    cutter = JsonCutter(0, in_array=in_array)
    blocks = [data[first:last] for first, last in itertools.pairwise(bounds)]
    found = [int(end) for block in blocks for end in cutter.ends(block)]
    assert found == np.cumsum([len(row) + 1 for row in rows[:-1]], dtype=int).tolist()


def test_rows_of_an_array_are_read_by_position_from_anywhere(corpus: Corpus) -> None:
    corpus.write("a.json", json.dumps([{"text": f"[{n}] {{"} for n in range(50)], indent=1))
    job = corpus.job()
    read = job.read_shards(list(reversed(cut(job.spans(), range(7, 50, 7)))))
    assert [text for documents in reversed(read) for text in documents.texts] == [f"[{n}] {{" for n in range(50)]


@pytest.mark.parametrize(
    ("content", "texts", "reasons"),
    [
        ('[{"text": "a"}, {"text": "b"', ["a"], ["the row looks cut off: the file ends inside its JSON"]),
        ('[{"text": "a"}, {"text": "b"}', ["a"], ["the row looks cut off: the file ends inside its JSON"]),
        ('[{"text": "a"},, {"text": "b"}]', ["a", "b"], ["not valid JSON: there is nothing before the comma"]),
        (
            '[{"text": "a"}, 7, "b", null]',
            ["a"],
            [f"the row is {kind}; expected a JSON object" for kind in ("a number", "a string", "null")],
        ),
        ('[{"text": "a"}, {"text": "b"}];', ["a"], ["something follows the end of the array"]),
        ('[{"text": "a"}, {"text": "b"}}]', ["a"], ["not valid JSON: trailing characters (byte 14)"]),
        (
            '[{"text": "a"}, {"text": "b"}}, {"text": "c"}}}, {"text": "d"}]',
            ["a", "d"],
            ["not valid JSON: trailing characters (byte 14)"] * 2,
        ),
        ('[{"text": "a"}, {"text": NaN}]', ["a"], ['"text" is a number; expected a string']),
    ],
)
def test_what_is_broken_in_an_array_is_one_row(
    corpus: Corpus, content: str, texts: list[str], reasons: list[str]
) -> None:
    corpus.write("a.json", content)
    read = corpus.job().read()
    assert (read.texts, [row.reason for row in read.rejected]) == (texts, reasons)


@pytest.mark.parametrize("between", ["", "\n", " \n "])
@pytest.mark.parametrize("indent", [None, 1])
def test_arrays_one_after_another_lose_nothing_at_the_seams(corpus: Corpus, between: str, indent: int | None) -> None:
    arrays = [json.dumps([{"text": f"{part}{n}"} for n in range(3)], indent=indent) for part in "abc"]
    corpus.write("a.json", between.join(arrays))
    read = corpus.job().read()
    assert read.texts == [f"{part}{n}" for part in "abc" for n in range(3)]
    assert (read.rows_read, read.rejected) == (9, [])


@pytest.mark.parametrize("content", ["[]", " [ ] \n", "[\n]"])
def test_an_empty_array_has_no_good_row(corpus: Corpus, content: str) -> None:
    corpus.write("a.json", content)
    read = corpus.job().read()
    assert (read.ids, read.rejected) == ([], [])


@pytest.mark.parametrize(
    "first", ['{"text": "cut', "{}}", "not json", '{"text": "a"} garbage', "[1, 2]", '"text"', "{'text': 1}", "{"]
)
def test_lines_stay_lines_where_the_first_is_broken(corpus: Corpus, first: str) -> None:
    corpus.write("a.jsonl", f'{first}\n{{"text": "b"}}\n{{"text": "c"}}\n')
    read = corpus.job().read()
    assert (read.texts, len(read.rejected)) == (["b", "c"], 1)


def test_an_object_around_the_rows_names_what_is_there(corpus: Corpus) -> None:
    corpus.write("a.json", json.dumps({"version": 1, "data": [{"text": "a"}]}, indent=1))
    with pytest.raises(InputError, match=r"no column 'text' in the first rows; the columns are 'version', 'data'"):
        corpus.job().spans()


def test_a_first_line_longer_than_any_block_is_still_a_line(corpus: Corpus) -> None:
    corpus.write("a.jsonl", json.dumps({"text": "x" * 9_000_000}) + '\n{"text": "b"\n{"text": "c"}\n')
    read = corpus.job().read()
    assert ([len(text) for text in read.texts], len(read.rejected)) == ([9_000_000, 1], 1)


@pytest.mark.parametrize("field", ["NaN", "-Infinity", '{"a": [NaN, "NaN"]}', '["\\ud83d"]', '["\\\\", "\\udc00"]'])
def test_what_json_forbids_spoils_only_the_rows_that_need_it(corpus: Corpus, field: str) -> None:
    corpus.write("a.jsonl", f'{{"id": "x", "text": "NaN \\\\ud83d", "more": {field}}}\n')
    assert corpus.job().read().texts == ["NaN \\ud83d"]
    assert corpus.job(columns={"carry": ["more"]}).read().carried["more"].to_pylist() == [field]


def test_pythons_constants_are_numbers(corpus: Corpus) -> None:
    corpus.write("a.jsonl", "".join(f'{{"text": "t", "n": {n}}}\n' for n in ("Infinity", "-Infinity", "NaN", "1")))
    found = corpus.job(columns={"carry": ["n"], "types": {"n": "float64"}}).read().carried["n"].to_pylist()
    assert (found[:2], found[2] != found[2], found[3]) == ([float("inf"), float("-inf")], True, 1.0)


NESTED = '{"_id": {"$oid": "60f"}, "message": {"text": "t", "lang": "en", "a.b": {"c": 1}}, "message.kind": "k"}\n'


def test_minus_zero_and_numbers_beyond_doubles(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"text": "t", "n": -0}\n{"text": "t", "n": 1e400}\n')
    read = corpus.job(columns={"carry": ["n"], "types": {"n": "float64"}}).read()
    assert [str(n) for n in read.carried["n"].to_pylist()] == ["-0.0"]
    assert len(read.rejected) == 1


def test_dotted_names_are_paths_unless_a_key_has_that_name(corpus: Corpus) -> None:
    corpus.write("a.jsonl", NESTED + '{"message": {"text": null}, "_id": 5}\n{"message": [], "_id": {"$oid": "x"}}\n')
    carry = ["message.lang", "message.a.b.c", "message.kind", "message.none.x"]
    columns = {"text": "message.text", "id": "_id.$oid", "carry": carry[:3]}
    read = corpus.job(columns=columns).read()
    assert (read.ids, read.texts, read.carried.to_pylist()) == (
        ["60f"],
        ["t"],
        [{"message.lang": "en", "message.a.b.c": "1", "message.kind": "k"}],
    )
    assert [row.reason for row in read.rejected] == ['"_id.$oid" is absent; expected an id', '"message.text" is absent']
    with pytest.raises(InputError, match=r"no column 'message.none.x'"):
        corpus.job(columns=columns | {"carry": carry}).read()


@pytest.mark.parametrize(
    ("id", "text"),
    [
        ("1.0", "1"),
        ("1.5", "1.5"),
        ("-0.25", "-0.25"),
        ("1e3", "1000"),
        ("true", "true"),
        ("12e20", "12e20"),
        ("12345678901234567.0", "12345678901234567.0"),
        ("1e400", "1e400"),
    ],
)
def test_any_scalar_is_an_id(corpus: Corpus, id: str, text: str) -> None:
    corpus.write("a.jsonl", f'{{"id": {id}, "text": "t"}}\n')
    assert corpus.job().read().ids == [text]


def test_no_id_column_means_file_and_row(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"id": [], "text": "t"}\n')
    columns = {"id": "", "carry": ["id"], "carry_as": {"id": "their_id"}}
    read = corpus.job(columns=columns).read()
    assert (read.ids, read.carried.to_pydict()) == (["a.jsonl:1"], {"their_id": ["[]"]})


@pytest.mark.parametrize("content", ['[{"text": "a"}, {"text": "b"},', '[{"text": "a"}] [', "["])
def test_an_array_that_ends_behind_a_comma_is_refused(corpus: Corpus, content: str) -> None:
    """No row is there to be set aside, so the file is what is wrong."""
    corpus.write("a.json", content)
    job = corpus.job(columns={"id": ""})
    with pytest.raises(InputError, match=r"a\.json: ends inside its array, so rows may be missing"):
        job.read()
