"""CSV: the header names the columns, and each bad record is set aside for its own reason."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedmill.base.errors import ConfigError, InputError
from embedmill.base.records import Documents
from embedmill.source.formats.boundaries import CsvCutter, Dialect
from embedmill.source.formats.csv_dialect import split_record
from tests.support.corpora import Corpus

NAME_IT = "if the file has another encoding, set input.encoding, such as cp1252"
UNQUOTED = "if the file does not quote its fields, set input.csv_quote to an empty string"
FIELD = st.text(st.sampled_from('ab é,;"\t\n\r\0'), max_size=6)


def read(corpus: Corpus, content: str | bytes, name: str = "a.csv", **tables: dict[str, Any]) -> Documents:
    corpus.write(name, content)
    return corpus.job(name, **tables).read()


def reasons(found: Documents) -> list[tuple[int, str]]:
    return [(row.row, row.reason) for row in found.rejected]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(FIELD, FIELD), max_size=6), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_pythons_writer_wrote_is_read_back(corpus: Corpus, rows: list[tuple[str, str]], end: str) -> None:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "more"), *rows])
    found = read(corpus, out.getvalue(), columns={"carry": ["more"]}, rows={"empty_text": "embed"})
    assert found.texts == [text for text, _ in rows]
    assert found.carried.column("more").to_pylist() == [more or None for _, more in rows]
    assert (found.rejected, found.rows_skipped) == ([], 0)


def test_columns_are_found_by_name_in_each_file(corpus: Corpus) -> None:
    corpus.write("a.csv", "id,text,kind\n1,one,x\n")
    corpus.write("b.csv", "extra,kind,text,id\n?,y,two,2\n")
    found = corpus.job(columns={"carry": ["kind"]}).read()
    assert (found.ids, found.texts, found.carried["kind"].to_pylist()) == (["1", "2"], ["one", "two"], ["x", "y"])


def test_a_byte_order_mark_and_blank_lines_before_the_header_are_left_out(corpus: Corpus) -> None:
    found = read(corpus, codecs.BOM_UTF8 + b'\n\r\n"id","te\n""xt"\n1,a\n', columns={"text": 'te\n"xt'})
    assert (found.ids, found.texts, found.rows_read) == (["1"], ["a"], 1)


def test_tabs_part_the_fields_of_tsv_and_the_set_character_those_of_csv(corpus: Corpus) -> None:
    settings = {"csv_delimiter": ";"}
    assert read(corpus, "id\ttext\n1\ta;b,c\n", "a.tsv", input=settings).texts == ["a;b,c"]
    assert read(corpus, "id\ttext\n1\ta;b,c\n", "a.tsv.gz", input=settings).texts == ["a;b,c"]
    assert read(corpus, "id;text\n1;a\tb,c\n", "a.tsv.csv", input=settings).texts == ["a\tb,c"]
    assert read(corpus, "id;text\n1;a\tb,c\n", "a.csv", input=settings).texts == ["a\tb,c"]


def test_blank_records_are_skipped_and_counted(corpus: Corpus) -> None:
    found = read(corpus, "id,text\n\n1,a\r\n\r\n\n2,b")
    assert (found.ids, found.rows_read, found.rows_skipped) == (["1", "2"], 5, 3)


def test_each_bad_record_is_set_aside_with_its_reason(corpus: Corpus) -> None:
    content = b'id,text,n\n1,a\n2,b,,\n3,,\n4,"  ",\n,c,\n5,\xff,\n6,fine,\n'
    found = read(corpus, content)
    assert found.ids == ["6"]
    assert reasons(found) == [
        (1, "the row has 2 fields; the header has 3"),
        (2, "the row has 4 fields; the header has 3"),
        (3, '"text" is empty'),
        (4, '"text" is only white space'),
        (5, '"id" is empty; expected an id'),
        (
            6,
            "not valid UTF-8 (byte 3 of the row); if the file has another encoding, set input.encoding, such as cp1252",
        ),
    ]
    assert [(row.id, row.excerpt) for row in found.rejected][2:4] == [("3", "3,,"), ("4", '4,"  ",')]


@pytest.mark.parametrize("end", ["", "\n", '\n""', "\nlast,line\n"])
def test_a_quote_that_is_never_closed_spoils_one_row_that_is_named(corpus: Corpus, end: str) -> None:
    found = read(corpus, f'id,text\n1,a\n2,"b{end}')
    assert found.ids == ["1"]
    assert reasons(found) == [(2, f"a quote that opens in this row is never closed; {UNQUOTED}")]


@pytest.mark.parametrize("quote", ['"', ""])
def test_an_escape_at_the_end_of_a_file_is_told_as_that(corpus: Corpus, quote: str) -> None:
    found = read(corpus, "id,text\n1,a\n2,b\\", input={"csv_quote": quote, "csv_escape": "\\"})
    assert found.ids == ["1"]
    assert reasons(found) == [(2, "an escape at the end of the row has nothing to escape")]


def test_an_open_quote_before_a_long_rest_of_the_file_is_one_row_that_is_not_held(corpus: Corpus) -> None:
    found = read(corpus, 'id,text\n1,a\n2,"b\n' + "3,c\n" * 1000, limits={"record_bytes": 1000})
    assert found.ids == ["1"]
    assert reasons(found) == [(2, "it has 4,005 bytes; limits.record_bytes allows 1,000")]


def test_a_field_may_be_longer_than_the_csv_module_allows_by_itself(corpus: Corpus) -> None:
    assert read(corpus, "id,text\n1," + "x" * 200_000).texts == ["x" * 200_000]


def test_quotes_inside_a_field_are_literal(corpus: Corpus) -> None:
    assert read(corpus, 'id,text\n1,a 5" disk\n3,b"\n').texts == ['a 5" disk', 'b"']


def test_text_after_a_closing_quote_is_never_joined_to_the_field(corpus: Corpus) -> None:
    found = read(corpus, 'id,text\n1,"say ""hi"""x\n2,"opens\n3,Nile\n4,6\' 2" tall\n5,last\n6,"a" \n')
    assert (found.ids, found.rows_read) == (["5"], 4)
    assert reasons(found) == [
        (row, f"text follows a closing quote, so the row may be two; {UNQUOTED}") for row in (1, 2, 4)
    ]


def test_carried_columns_are_strings_unless_a_type_is_set(corpus: Corpus) -> None:
    types = {"n": "int64", "f": "float64", "b": "bool"}
    content = "text,s,n,f,b\nt,x,7,1,true\nt,,-9223372036854775808,-.5e1,False\nt,,,,\nt,,+1,inf,TRUE\n"
    carried = read(corpus, content, columns={"carry": ["s", "n", "f", "b"], "types": types}).carried
    assert [str(type) for type in carried.schema.types] == ["string", "int64", "double", "bool"]
    assert carried.to_pydict() == {
        "s": ["x", None, None, None],
        "n": [7, -(2**63), None, 1],
        "f": [1.0, -5.0, None, float("inf")],
        "b": [True, False, None, True],
    }


@pytest.mark.parametrize(
    ("type", "field"),
    [
        ("int64", "1.0"),
        ("int64", " 1"),
        ("int64", "1_0"),
        ("int64", "٣"),
        ("int64", "9223372036854775808"),
        ("int64", "9" * 5000),
        ("float64", "1,5"),
        ("float64", "1_0.5"),
        ("float64", "one"),
        ("float64", "-1e400"),
        ("bool", "1"),
        ("bool", "yes"),
    ],
)
def test_a_carried_field_of_another_type_is_set_aside(corpus: Corpus, type: str, field: str) -> None:
    columns = {"carry": ["n"], "types": {"n": type}}
    found = read(corpus, f'id,text,n\n1,a,"{field}"\n2,b,\n', columns=columns)
    expected = {"int64": "a 64-bit integer", "float64": "a number", "bool": "true or false"}[type]
    assert found.ids == ["2"]
    assert reasons(found) == [(1, f'"n" is {field[:40]!r}; expected {expected}')]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,body\n1,a\n", r"a\.csv: there is no column 'text'; the columns are 'id', 'body'; set columns\.text"),
        (b"id,texts\n1,a\n", r"did you mean 'texts'\?"),
        (b"text,id,text\na,1,b\n", "the column 'text' is there twice"),
        (b"id,t\xffxt\n1,a\n", "the header is not valid UTF-8 .byte 5 of the header.*input.encoding"),
    ],
)
def test_a_header_that_does_not_fit_is_an_error(corpus: Corpus, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(corpus, content)


def test_a_later_file_without_the_column_is_named_before_anything_is_read(corpus: Corpus) -> None:
    corpus.write("a.csv", "id,text\n1,a\n")
    corpus.write("b.csv", "id,body\n1,a\n")
    with pytest.raises(InputError, match=r"b\.csv: there is no column 'text'"):
        corpus.job().spans()


def test_a_header_without_end_is_an_error(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="the header has 2,001 bytes; close its quotes"):
        read(corpus, '"' + "x" * 2000, limits={"record_bytes": 1000})


@pytest.mark.parametrize("delimiter", ['"', "\n", "é"])
def test_a_delimiter_that_cannot_be_one_is_a_config_error(corpus: Corpus, delimiter: str) -> None:
    with pytest.raises(ConfigError, match=r"`input\.csv_delimiter`"):
        read(corpus, "id,text\n", input={"csv_delimiter": delimiter})


@pytest.mark.parametrize("content", ["", "id,text\n", "id,text", "\n\n"])
def test_a_file_without_rows_has_none(corpus: Corpus, content: str) -> None:
    found = read(corpus, content)
    assert (found.ids, found.rows_read) == ([], 0)


SEPARATED = {
    ",": "id,text\n1,a;b|c\n",
    ";": "id;text\n1;a,b|c\n",
    "\t": "id\ttext\n1\ta,b;c\n",
    "|": "id|text\n1|a,b;c\n",
}


@pytest.mark.parametrize("delimiter", SEPARATED)
def test_the_header_tells_the_delimiter(corpus: Corpus, delimiter: str) -> None:
    content = SEPARATED[delimiter]
    assert read(corpus, content).texts == [content.splitlines()[1][2:]]
    with pytest.raises(InputError, match=r"no column 'body'; the columns are 'id', 'text'"):
        read(corpus, content, columns={"text": "body"})


@pytest.mark.parametrize("delimiter", SEPARATED)
def test_excels_line_of_the_separator_is_no_header(corpus: Corpus, delimiter: str) -> None:
    found = read(corpus, f"\ufeffsep={delimiter}\r\n{SEPARATED[delimiter]}")
    assert (found.ids, found.rows_read) == (["1"], 1)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".bz2", ".xz"])
def test_tsv_is_read_without_quotes_and_csv_with_what_is_set(corpus: Corpus, suffix: str) -> None:
    content = 'id\ttext\n1\t"Unbreakable" is a film\n2\t"opens\n3\t"a ""b"""\n'
    assert read(corpus, content, f"a.tsv{suffix}").texts == ['"Unbreakable" is a film', '"opens', '"a ""b"""']
    assert read(corpus, content, f"a.csv{suffix}", input={"csv_quote": ""}).texts[1] == '"opens'
    quoted = 'id\ttext\n1\t"a ""b"""\n2\t"two\nlines\tand a tab"\n'
    assert read(corpus, quoted, f"b.tsv{suffix}", input={"csv_quote": '"'}).texts == ['a "b"', "two\nlines\tand a tab"]
    assert read(corpus, "id,text\n1,'it''s, so'\n", "c.csv", input={"csv_quote": "'"}).texts == ["it's, so"]


@pytest.mark.parametrize(
    ("content", "input", "warned"),
    [
        ('id\ttext\n1\t"a ""q"" b"\n', {}, True),
        ('id\ttext\n1\tplain\n"2"\t"""q"""\r\n', {}, True),
        ('id\ttext\n1\t"a ""q"" b"\n', {"csv_quote": ""}, False),
        ('id\ttext\n1\t"a ""q"" b"\n', {"csv_quote": '"'}, False),
        ('id\ttext\n1\t"Unbreakable" is ""a"" film\n2\t"whole"\n3\t6\' 2""\n4\t""\n', {}, False),
    ],
)
def test_quotes_of_a_tsv_that_two_readers_read_in_two_ways_are_told(
    corpus: Corpus, caplog: pytest.LogCaptureFixture, content: str, input: dict[str, Any], warned: bool
) -> None:
    read(corpus, content, "a.tsv", input=input)
    said = [record.getMessage() for record in caplog.records if "doubled quotes" in record.getMessage()]
    assert len(said) == warned
    assert all("set input.csv_quote to a quote if fields are quoted" in line for line in said)


def test_a_tsv_whose_quotes_hold_line_ends_is_told_with_the_option_that_helps(corpus: Corpus) -> None:
    found = read(corpus, 'id\ttext\n1\t"l1\nl2"\n2\tb\n', "a.tsv")
    assert "the row has 1 field; the header has 2; set input.csv_quote to a quote" in found.rejected[0].reason


def test_an_escape_makes_the_next_character_literal_as_mysql_writes(corpus: Corpus) -> None:
    content = "id\ttext\tn\n1\ta\\\tb\\\nc\t\\N\n2\tC:\\\\N\tx\\Ny\n3\tline\\nend\\ttab\t7\n4\t\\N\t\n\\N\tx\t\n"
    found = read(corpus, content, "a.tsv", input={"csv_escape": "\\"}, columns={"carry": ["n"]})
    assert found.texts == ["a\tb\nc", "C:\\N", "line\nend\ttab"]
    assert found.carried["n"].to_pylist() == [None, "xNy", "7"]
    assert reasons(found) == [(4, '"text" is null'), (5, '"id" is null; expected an id')]
    assert read(corpus, 'id,text\n1,"a \\"b\\", c"\n', "b.csv", input={"csv_escape": "\\"}).texts == ['a "b", c']
    assert read(corpus, "id,text\n1,C:\\new\\N\n", "c.csv").texts == ["C:\\new\\N"]


def test_an_escaped_zero_is_a_zero_and_no_null(corpus: Corpus) -> None:
    content = "id,text,n\n1,ab\\0\\0Nc,\\0\\0N\n2,\0\0N\\t,\0N\\N\n"
    found = read(corpus, content, input={"csv_escape": "\\"}, columns={"carry": ["n"]})
    assert found.texts == ["ab\0\0Nc", "\0\0N\t"]
    assert found.carried["n"].to_pylist() == ["\0\0N", "\0NN"]


ESCAPED_FIELD = st.text(st.sampled_from('a",\\\n\r'), max_size=4)


@given(
    rows=st.lists(st.lists(ESCAPED_FIELD, min_size=2, max_size=3), max_size=5),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE]),
    cuts=st.lists(st.integers(0, 10**6), max_size=6),
)
def test_escaped_line_ends_end_no_record_however_the_bytes_come(
    rows: list[list[str]], quoting: Literal[0, 1, 3], cuts: list[int]
) -> None:
    lines = []
    for row in rows:
        out = io.StringIO()
        csv.writer(out, doublequote=False, escapechar="\\", quoting=quoting, lineterminator="\r\n").writerow(row)
        lines.append(out.getvalue())
    data = "".join(lines).encode()
    bounds = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    dialect = Dialect(delimiter=",", quote='"' * (quoting != csv.QUOTE_NONE), escape="\\")
    cutter = CsvCutter(dialect, 0)
    ends = [int(end) for first, last in itertools.pairwise(bounds) for end in cutter.ends(data[first:last])]
    assert ends == list(itertools.accumulate(map(len, lines)))
    assert [split_record(line, dialect) for line in lines] == rows


def test_without_a_header_columns_are_numbered_or_named(corpus: Corpus) -> None:
    content = "7;one\n8;two, three\n"
    found = read(corpus, content, input={"csv_header": False}, columns={"text": "2", "id": "1"})
    assert (found.ids, found.texts) == (["7", "8"], ["one", "two, three"])
    named = read(corpus, content, input={"csv_header": False}, columns={"names": ["id", "text"]})
    assert (named.ids, named.texts) == (found.ids, found.texts)
    with pytest.raises(InputError, match=r"no column 'text' \(without a header: see `columns\.names`\).*'1', '2'"):
        read(corpus, content, input={"csv_header": False})


def test_only_the_first_line_names_the_separator_and_only_the_one_in_use(corpus: Corpus) -> None:
    options: dict[str, Any] = {"input": {"csv_header": False}, "columns": {"names": ["text"]}}
    assert read(corpus, "sep=a\nsep=b\nc\n", "a.csv", **options).texts == ["sep=a", "sep=b", "c"]
    assert read(corpus, "sep=,\nsep=b\nc\n", "b.csv", **options).texts == ["sep=b", "c"]
    two: dict[str, Any] = {"input": {"csv_header": False}, "columns": {"names": ["id", "text"]}}
    assert read(corpus, "sep=;\n1;hello, you\n", "c.csv", **two).texts == ["hello, you"]
    assert read(corpus, "sep=;\ntext\nhello, you\n", "d.csv").texts == ["hello, you"]


@pytest.mark.parametrize("bad", ["a\rb;1", '"a"b;1', b"\xff;1"])
def test_a_first_row_that_cannot_be_read_costs_no_other_without_a_header(corpus: Corpus, bad: str | bytes) -> None:
    head = bad if isinstance(bad, bytes) else bad.encode()
    columns, input = {"names": ["text", "id"]}, {"csv_header": False}
    found = read(corpus, b"\n" + head + b"\n\nc;2\nd;3\n", input=input, columns=columns)
    assert (found.texts, len(found.rejected), found.rows_read) == (["c", "d"], 1, 4)
    with pytest.raises(InputError, match="first row"):
        read(corpus, head + b"\n", "b.csv", input=input, columns=columns)


def test_a_header_of_thousands_of_columns_tells_the_line_ends(corpus: Corpus) -> None:
    names = [f"column number {number}" for number in range(30_000)]
    content = ",".join(["text", *names]) + "\r" + ",".join(["a"] * 30_001) + "\r"
    assert read(corpus, content).texts == ["a"]


def test_a_row_that_does_not_decode_names_the_option_that_helps(corpus: Corpus) -> None:
    content = "id,text\n1,café\n2,tea \n".encode("cp1252") + b"3,\x81\n"
    assert reasons(read(corpus, content)) == [
        (1, f"not valid UTF-8 (byte 6 of the row); {NAME_IT}"),
        (3, f"not valid UTF-8 (byte 3 of the row); {NAME_IT}"),
    ]
    found = read(corpus, content, input={"encoding": "cp1252"})
    assert found.texts == ["café", "tea "]
    assert reasons(found) == [(3, "not valid cp1252, as which the file is read; set input.encoding to what it is")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"csv_quote": ","}, "csv_delimiter"),
        ({"csv_quote": '"', "csv_escape": '"'}, "csv_quote"),
        ({"csv_escape": "\n"}, "csv_escape"),
        ({"csv_quote": "é"}, "csv_quote"),
    ],
)
def test_characters_of_a_dialect_must_differ(corpus: Corpus, table: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"`input\.{message}` is"):
        read(corpus, "id,text\n1,a\n", input=table)


LONE = "a lone carriage return, which some read as the end of a row, stands in a field without quotes"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_lone_return_ends_rows_only_where_the_header_ends_so(corpus: Corpus, end: str) -> None:
    found = read(
        corpus, end.join(["id,text,note", '1,a,"n"', "2,b,x\ry", '3,"c\rd",', ""]), columns={"carry": ["note"]}
    )
    assert (found.ids, found.texts) == (["1", "3"], ["a", "c\rd"])
    assert reasons(found) == [(2, LONE)]
    one = read(corpus, end.join(["text", "hello\rworld", "b", ""]), "b.csv")
    assert (one.texts, reasons(one)) == (["b"], [(1, LONE)])
    for last in ("\r", end):
        assert read(corpus, "text\rhello\rworld" + last, "c.csv").texts == ["hello", "world"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_in_fields_are_read_as_mysql_escapes_them(corpus: Corpus, end: str) -> None:
    # Of a line end in a text MySQL escapes the first character of what ends its lines.
    inside = "a\\\r\nb" if end == "\r\n" else "a\r\\\nb"
    content = end.join([f"1\t{inside}", "2\tc", ""])
    options = {"csv_escape": "\\", "csv_header": False}
    found = read(corpus, content, "a.tsv", input=options, columns={"names": ["id", "text"]})
    assert (found.texts, found.rejected) == (["a\r\nb", "c"], [])


def test_the_last_line_of_postgresql_is_no_row(corpus: Corpus) -> None:
    found = read(corpus, "id\ttext\n1\ta\n\\.\n", "a.tsv", input={"csv_escape": "\\"})
    assert (found.texts, found.rejected, found.rows_skipped) == (["a"], [], 1)


def test_names_of_another_count_than_the_fields_are_told(corpus: Corpus) -> None:
    with pytest.raises(InputError, match=r"the first row has 2 fields, and `columns.names` names 3"):
        read(corpus, "1,a\n", input={"csv_header": False}, columns={"names": ["id", "text", "k"]})


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_partitions_have_the_type_that_is_set(corpus: Corpus, name: str) -> None:
    for year in ("2024", "%FF"):
        if name == "a.parquet":
            corpus.write_table(f"year={year}/{name}", {"text": ["t"]})
        else:
            corpus.write(f"year={year}/{name}", "text\nt\n" if name == "a.csv" else '{"text": "t"}\n')
    typed = {"carry": ["year"], "types": {"year": "int64"}}
    assert corpus.job("year=2024", columns=typed).read().carried["year"].to_pylist() == [2024]
    assert corpus.job("year=%FF", columns={"carry": ["year"]}).read().carried["year"].to_pylist() == ["%FF"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
@pytest.mark.parametrize(
    ("text", "type", "value"),
    [
        ("01", "int64", 1),
        ("+5", "int64", 5),
        ("0x10", "int64", None),
        (" 5", "int64", None),
        (str(2**63), "int64", None),
        (".5", "float64", 0.5),
        ("inf", "float64", float("inf")),
        ("9007199254740993", "float64", None),
        ("1e400", "float64", None),
        ("1e-400", "float64", None),
        ("TRUE", "bool", True),
        ("1", "bool", None),
    ],
)
def test_partitions_are_read_as_fields_are_whatever_the_format(
    corpus: Corpus, name: str, text: str, type: str, value: object
) -> None:
    if name == "a.parquet":
        corpus.write_table(f"k={text}/{name}", {"text": ["t"]})
    else:
        corpus.write(f"k={text}/{name}", "text\nt\n" if name == "a.csv" else '{"text": "t"}\n')
    job = corpus.job(columns={"carry": ["k"], "types": {"k": type}})
    if value is None and name == "a.parquet":
        with pytest.raises(InputError, match=r"the folder 'k=.*' gives 'k' no value that is"):
            job.read()
    elif value is None:
        assert [one.reason.partition(";")[0][:6] for one in job.read().rejected] == ['"k" is']
    else:
        assert job.read().carried["k"].to_pylist() == [value]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_partitions_in_the_path_are_columns_unless_the_file_has_them(corpus: Corpus, name: str) -> None:
    for lang in ("en", "__HIVE_DEFAULT_PARTITION__", "a%2Fb%3Dc"):
        folder = f"year=2020/lang={lang}"
        if name == "a.csv":
            corpus.write(f"{folder}/{name}", "text,year\nt,1999\n")
        elif name == "a.jsonl":
            corpus.write(f"{folder}/{name}", '{"text": "t", "year": "1999"}\n')
        else:
            corpus.write_table(f"{folder}/{name}", {"text": ["t"], "year": ["1999"]})
    rows = corpus.job(columns={"carry": ["lang", "year"]}).read().carried.to_pylist()
    assert rows == [{"lang": lang, "year": "1999"} for lang in (None, "a/b=c", "en")]
    inside = corpus.job("year=2020/lang=en", columns={"carry": ["lang"], "id": "lang"}).read()
    assert (inside.ids, inside.carried["lang"].to_pylist()) == (["en"], ["en"])
    assert corpus.job(f"year=2020/lang=en/{name}").files[0].name == f"year=2020/lang=en/{name}"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("1;a, b\n2;c, d\n", "',' or ';'"),
        ("1\ta;b\n", "';' or '\\t'"),
        ("1|a\tb;c,d\n", "',' or ';' or '\\t' or '|'"),
    ],
)
def test_a_first_row_of_several_delimiters_is_not_guessed_at(corpus: Corpus, content: str, told: str) -> None:
    for names in ([], ["id", "text"]):
        columns = {"names": names, "id": "", "text": names[1] if names else "2"}
        with pytest.raises(InputError, match=r"the first row can be cut at .*set input\.csv_delimiter") as refused:
            read(corpus, content, input={"csv_header": False}, columns=columns)
        assert told in str(refused.value)
    found = read(corpus, content, input={"csv_header": False, "csv_delimiter": ";"}, columns={"text": "1", "id": ""})
    assert found.texts == [line.split(";")[0] for line in content.splitlines()]


@pytest.mark.parametrize("before", [1, 100_000])
def test_a_lone_feed_among_rows_that_end_in_returns_is_one_bad_row(corpus: Corpus, before: int) -> None:
    rows = [f"w{number}" for number in range(before)]
    found = read(corpus, "\r".join(["text", *rows, "a\nb", '"c\nd"', "e", ""]), columns={"id": ""})
    assert found.texts == [*rows, "c\nd", "e"]
    assert reasons(found) == [(before + 1, LONE.replace("carriage return", "line feed"))]


@pytest.mark.parametrize("noise", ["\r\r\r\r", "a\r\r\r\rb"])
def test_returns_at_the_end_do_not_change_what_the_header_tells(corpus: Corpus, noise: str) -> None:
    found = read(corpus, "id,text\n1,a\n2,b\n" + noise)
    assert found.texts == ["a", "b"]
    assert len(found.rejected) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_header_with_a_lone_return_is_told_as_that(corpus: Corpus, end: str) -> None:
    with pytest.raises(InputError, match="the header holds a lone carriage return"):
        read(corpus, f"id,text,a\r1,w,v{end}2,w,v{end}")


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("0.1", 0.1),
        ("9007199254740992", 2.0**53),
        ("9007199254740993", None),
        ("-123456789012345678901234567890", None),
        ("1e23", 1e23),
        ("1e400", None),
        ("1e-400", None),
        ("0e-400", 0.0),
        ("0.0", 0.0),
        ("5e-324", 5e-324),
    ],
)
def test_a_number_becomes_the_nearest_double_and_no_integer_another(
    corpus: Corpus, name: str, number: str, value: float | None
) -> None:
    row = f"id,text,x\n1,w,{number}\n" if name == "a.csv" else f'{{"id": 1, "text": "w", "x": {number}}}\n'
    found = read(corpus, row, name, columns={"carry": ["x"], "types": {"x": "float64"}})
    assert found.carried["x"].to_pylist() == ([] if value is None else [value])
    assert [row.reason for row in found.rejected] == ([] if value is not None else [f'"x" is {quoted(name, number)}'])


def test_a_number_of_thousands_of_digits_is_read_or_set_aside(corpus: Corpus) -> None:
    zeros = "0" * 5000
    content = f"text,x\na,{zeros}9007199254740993\nb,{zeros}9007199254740992\nc,{zeros}\n"
    found = read(corpus, content, columns={"carry": ["x"], "types": {"x": "float64"}})
    assert (found.texts, found.carried["x"].to_pylist()) == (["b", "c"], [9007199254740992.0, 0.0])


def quoted(name: str, number: str) -> str:
    return f"{repr(number) if name == 'a.csv' else number}; expected a number"
