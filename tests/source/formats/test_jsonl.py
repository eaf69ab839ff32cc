"""JSONL: good lines become rows, each bad line is set aside for its own reason."""

from __future__ import annotations

import codecs
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.base.errors import InputError
from embedmill.base.records import Rejected
from tests.support.corpora import Corpus

NOT_UTF8 = "not valid UTF-8 (byte {} of the row); if the file has another encoding, set input.encoding, such as cp1252"
GOOD = b'{"id": "good", "text": "fine"}\n'


def rejected(corpus: Corpus, line: bytes, **tables: dict[str, Any]) -> Rejected:
    """What becomes of a bad line between two good ones."""
    corpus.write("a.jsonl", GOOD + line + b"\n" + GOOD.replace(b"good", b"also good"))
    read = corpus.job(**tables).read()
    assert read.ids == ["good", "also good"]
    (found,) = read.rejected
    assert (found.file, found.row) == ("a.jsonl", 2)
    return found


@pytest.mark.parametrize(
    ("line", "reason", "id"),
    [
        (b'{"id": "x"}', '"text" is absent', "x"),
        (b'{"id": "x", "text": null}', '"text" is null', "x"),
        (b'{"id": "x", "text": ""}', '"text" is empty', "x"),
        (b'{"id": "x", "text": " \\n\\t\\u00a0"}', '"text" is only white space', "x"),
        (b'{"id": "x", "text": 7}', '"text" is a number; expected a string', "x"),
        (b'{"id": "x", "text": -1.5e3}', '"text" is a number; expected a string', "x"),
        (b'{"id": "x", "text": true}', '"text" is a boolean; expected a string', "x"),
        (b'{"id": "x", "text": ["a"]}', '"text" is a list; expected a string', "x"),
        (b'{"id": 5, "text": {"a": 1}}', '"text" is an object; expected a string', "5"),
        (b'{"text": "t"}', '"id" is absent; expected an id', None),
        (b'{"id": null, "text": "t"}', '"id" is null; expected an id', None),
        (b'{"id": "", "text": "t"}', '"id" is empty; expected an id', None),
        (b'{"id": ["x"], "text": "t"}', '"id" is a list; expected an id', None),
        (b'["x", "t"]', "the row is a list; expected a JSON object", None),
        (b'"t"', "the row is a string; expected a JSON object", None),
        (b"7", "the row is a number; expected a JSON object", None),
        (b"null", "the row is null; expected a JSON object", None),
        (b'{"id": "x", "text": "t",}', "not valid JSON: trailing comma in object (byte 24)", None),
        (b"{'id': 'x'}", "not valid JSON: object keys must be strings (byte 1)", None),
        (b'{"id": "x", "text": "t"} {}', "not valid JSON: trailing characters (byte 26)", None),
        (b'{"id": "x", "text": NaN}', '"text" is a number; expected a string', "x"),
        (b'{"id": -Infinity, "text": "t"}', '"id" is -Infinity; expected an id', None),
        (b'{"id": "x", "text": "t", "n": Nan}', "not valid JSON: invalid character (byte 30)", None),
        (
            b'{"id": "x", "text": "t\xff"}',
            NOT_UTF8.format(23),
            None,
        ),
        (
            b'{"id": "x", "text": "t", "n": "\xed\xa0\x80"}',
            NOT_UTF8.format(32),
            None,
        ),
        (b'{"id": "x", "text": "\\udc00"}', '"text" holds half of a surrogate pair', "x"),
        (b'{"id": "x", "text": "\\ud800"}', '"text" holds half of a surrogate pair', "x"),
        (b'{"id": "x", "text": "t"', "not valid JSON: it ends too early", None),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the JSON is nested too deeply", None),
    ],
)
def test_a_bad_line_is_set_aside_with_its_reason(corpus: Corpus, line: bytes, reason: str, id: str | None) -> None:
    found = rejected(corpus, line)
    assert (found.reason, found.id) == (reason, id)
    assert found.excerpt == line.decode("utf-8", "replace")[:200]


@pytest.mark.parametrize("name", ["text", "id"])
@pytest.mark.parametrize("half", ["\ud800", "a\ud83dbcdef", "low \ude00", "\ud83d\n"])
def test_half_a_surrogate_pair_is_bad_where_it_is_read(corpus: Corpus, name: str, half: str) -> None:
    line = json.dumps({"id": "x", "text": "t", "kind": "k"} | {name: half})
    assert rejected(corpus, line.encode()).reason == f'"{name}" holds half of a surrogate pair'


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_last_line_that_was_half_written_looks_cut_off(corpus: Corpus, data: st.DataObject) -> None:
    line = '{"n": [-12.5e-3, true, null], "text": "\\u00e9é\\ud83d\\ude00😀", "id": 1}'.encode()
    corpus.write("a.jsonl", GOOD + line[: data.draw(st.integers(1, len(line) - 1))])
    (found,) = corpus.job().read().rejected
    assert (found.row, found.reason) == (2, "the row looks cut off: the file ends inside its JSON")


def test_a_broken_last_line_that_is_whole_is_not_called_cut_off(corpus: Corpus) -> None:
    corpus.write("a.jsonl", GOOD + b"{'text': 1}")
    (found,) = corpus.job().read().rejected
    assert found.reason == "not valid JSON: object keys must be strings (byte 1)"


def test_a_last_line_without_an_end_counts(corpus: Corpus) -> None:
    corpus.write("a.jsonl", GOOD.rstrip())
    assert corpus.job().read().ids == ["good"]


def test_blank_lines_are_skipped_and_counted(corpus: Corpus) -> None:
    corpus.write("a.jsonl", b"\n" + GOOD + b" \t\r\n\n" + b'{"id": "", "text": ""}\n')
    read = corpus.job(rows={"wrong_type": "quarantine"}).read()
    assert (read.ids, read.rows_read, read.rows_skipped) == (["good"], 5, 3)
    assert [row.row for row in read.rejected] == [5]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_any_line_end_are_no_part_of_the_rows(corpus: Corpus, end: bytes) -> None:
    corpus.write("a.jsonl", codecs.BOM_UTF8 + GOOD.rstrip() + end + b'{"id": 2, "text": "two"}' + end)
    read = corpus.job().read()
    assert (read.ids, read.texts, read.rejected) == (["good", "2"], ["fine", "two"], [])


def test_a_file_of_a_byte_order_mark_alone_has_no_rows(corpus: Corpus) -> None:
    corpus.write("a.jsonl", codecs.BOM_UTF8)
    assert corpus.job().read().rows_read == 0


@pytest.mark.parametrize(
    ("id", "expected"), [('"a"', "a"), ("7", "7"), ("-3", "-3"), ("9" * 5000, "9" * 5000), ('"\\u00e9"', "é")]
)
def test_strings_and_integers_are_ids(corpus: Corpus, id: str, expected: str) -> None:
    corpus.write("a.jsonl", f'{{"id": {id}, "text": "t"}}\n')
    assert corpus.job().read().ids == [expected]


def test_without_an_id_column_file_and_line_name_a_row(corpus: Corpus) -> None:
    corpus.write("x/a.jsonl", '{"text": "one"}\n\n{"text": 2}\n{"text": "four"}\n')
    read = corpus.job().read()
    assert read.ids == ["x/a.jsonl:1", "x/a.jsonl:4"]
    assert [row.id for row in read.rejected] == ["x/a.jsonl:3"]


@pytest.mark.parametrize("text", ["a\0b", "a\u2028b", "😀", '"\\', "e\u0301"])
def test_a_text_comes_out_as_it_went_in(corpus: Corpus, text: str) -> None:
    corpus.write("a.jsonl", "".join(json.dumps({"text": text}, ensure_ascii=plain) + "\n" for plain in (True, False)))
    assert corpus.job().read().texts == [text, text]


def test_escaped_keys_and_repeated_keys_are_read_and_the_last_counts(corpus: Corpus) -> None:
    corpus.write("a.jsonl", '{"text": "first", "te\\u0078t": "last"}\n')
    assert corpus.job().read().texts == ["last"]


def test_carried_columns_are_strings_unless_a_type_is_set(corpus: Corpus) -> None:
    lines = [
        '{"text": "t", "s": "é", "n": 7, "f": 1, "b": true}',
        '{"text": "t", "s": {"a": [1, 2.50]}, "n": -9223372036854775808, "f": -2.5e1, "b": false}',
        '{"text": "t", "s": null}',
    ]
    corpus.write("a.jsonl", "\n".join(lines))
    types = {"n": "int64", "f": "float64", "b": "bool"}
    carried = corpus.job(columns={"carry": ["s", "n", "f", "b"], "types": types}).read().carried
    assert [str(type) for type in carried.schema.types] == ["string", "int64", "double", "bool"]
    assert carried.to_pydict() == {
        "s": ["é", '{"a": [1, 2.50]}', None],
        "n": [7, -(2**63), None],
        "f": [1.0, -25.0, None],
        "b": [True, False, None],
    }


@pytest.mark.parametrize(
    ("type", "value", "reason"),
    [
        ("int64", "1.0", '"n" is 1.0; expected a 64-bit integer'),
        ("int64", "true", '"n" is true; expected a 64-bit integer'),
        ("int64", '"1"', '"n" is "1"; expected a 64-bit integer'),
        ("int64", "9223372036854775808", '"n" is 9223372036854775808; expected a 64-bit integer'),
        ("int64", "9" * 5000, f'"n" is {"9" * 40}; expected a 64-bit integer'),
        ("float64", '"1"', '"n" is "1"; expected a number'),
        ("float64", "1e999", '"n" is 1e999; expected a number'),
        ("bool", "1", '"n" is 1; expected a boolean'),
    ],
)
def test_a_carried_value_of_another_type_is_set_aside(corpus: Corpus, type: str, value: str, reason: str) -> None:
    line = f'{{"id": "x", "text": "t", "n": {value}}}'.encode()
    found = rejected(corpus, line, columns={"carry": ["n"], "types": {"n": type}})
    assert (found.reason, found.id) == (reason, "x")


def test_records_and_texts_over_the_limits_are_too_long(corpus: Corpus) -> None:
    limits = {"record_bytes": 120, "text_bytes": 40}
    corpus.write(
        "a.jsonl", GOOD + b'{"id": 1, "text": "' + "é".encode() * 21 + b'"}\n' + b'{"id": 2, "text": "x"}' + b" " * 200
    )
    read = corpus.job(limits=limits).read()
    assert [row.reason for row in read.rejected] == [
        '"text" has 42 bytes; limits.text_bytes allows 40',
        "it has 222 bytes; limits.record_bytes allows 120",
    ]
    assert read.rejected[1].excerpt.startswith('{"id": 2, "text": "x"}')
    corpus.write("a.jsonl", b'{"text": "' + "é".encode() * 20 + b'"}\n')
    assert corpus.job(limits=limits).read().texts == ["é" * 20]


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_bytes_at_all_are_accounted_for(corpus: Corpus, noise: bytes) -> None:
    corpus.write("a.jsonl", GOOD + b"{" + noise + b"\n" + GOOD)
    read = corpus.job(rows={"duplicate_id": "keep"}).read()
    assert {read.ids[0], read.ids[-1]} == {"good"}
    assert read.rows_read == 3 + noise.count(b"\n")


LONG = b'{"id": "x", "text": "' + b'a\\" ' * 600_000


def test_a_long_row_that_is_cut_off_is_read_once(corpus: Corpus) -> None:
    """Not once for each of its quotes, which would take hours."""
    assert rejected(corpus, LONG).reason.startswith("not valid JSON")


def test_a_long_object_over_lines_is_read_once(corpus: Corpus) -> None:
    objects = [LONG.replace(b", ", b",\n") + b'"}', b'{\n"id": "y", "text": "short"\n}']
    corpus.write("a.json", b"\n".join(objects))
    assert corpus.job().read().ids == ["x", "y"]


def test_constants_beside_a_long_text_are_found(corpus: Corpus) -> None:
    corpus.write("a.jsonl", LONG + b'", "n": NaN}\n')
    assert corpus.job(columns={"carry": ["n"]}).read().carried.column("n").to_pylist() == ["NaN"]


@pytest.mark.parametrize("end", [" x", "}", "\0"])
def test_what_follows_the_last_object_is_no_cut(corpus: Corpus, end: str) -> None:
    corpus.write("a.jsonl", '{"id": "x", "text": "t"}' + end)
    (found,) = corpus.job().read().rejected
    assert found.reason.startswith("not valid JSON: trailing characters")


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("1.0", "1"),
        ("1.0000000000000001", "1.0000000000000001"),
        ("1e-400", "1e-400"),
        ("1e99999999999999999999", "1e99999999999999999999"),
        ("-1.5e-99999999999999999999", "-1.5e-99999999999999999999"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1e2", "100"),
        ("0.10", "0.10"),
        ("9007199254740993.0", "9007199254740993.0"),
    ],
)
def test_an_id_that_no_double_is_stays_what_it_was(corpus: Corpus, id: str, expected: str) -> None:
    corpus.write("a.jsonl", f'{{"id": {id}, "text": "t"}}\n')
    assert corpus.job().read().ids == [expected]


def test_a_first_row_that_cannot_be_read_takes_no_column_away(corpus: Corpus) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    corpus.write("a.jsonl", f'{{"id": 1, "text": "a", "z": {deep}}}\n{{"id": 2, "text": "b"}}\n')
    read = corpus.job(columns={"carry": ["z"]}).read()
    assert (read.ids, [row.reason for row in read.rejected]) == (["2"], ["the JSON is nested too deeply"])
    with pytest.raises(InputError, match="there is no column 'y' in the first rows"):
        corpus.job(columns={"carry": ["y"]}).read()
