"""Bad rows are set aside with their reasons, or end the run where the job says so."""

from __future__ import annotations

import pytest

from embedmill.sink.verify import verify
from tests.hostile.command import Cli
from tests.support.jobs import (
    embedmill,
    ids_of,
    make_rows,
    quarantined_in,
    write_jsonl,
)

HALF = b'{"id": 9, "text": "sto'
BAD_LINES = {
    "half a line": (HALF, "the row looks cut off"),
    "half a line in the middle": (HALF + b'\n{"id": 10, "text": "river"}\n', "not valid JSON"),
    "invalid UTF-8": (b'{"id": 9, "text": "\xff"}\n', "not valid UTF-8 (byte 20 of the row)"),
    "a lone surrogate": (b'{"id": 9, "text": "\\ud800"}\n', "surrogate"),
    "a number": (b'{"id": 9, "text": 5}\n', '"text" is a number; expected a string'),
    "an object": (b'{"id": 9, "text": {}}\n', '"text" is an object; expected a string'),
    "a null": (b'{"id": 9, "text": null}\n', '"text" is null'),
    "an empty text": (b'{"id": 9, "text": ""}\n', '"text" is empty'),
    "no object": (b"[1]\n", "the row is a list; expected a JSON object"),
    "an id of the wrong type": (b'{"id": [1], "text": "stone"}\n', '"id" is a list; expected an id'),
    "a duplicate id": (b'{"id": "row-3", "text": "stone"}\n', 'the id "row-3" occurs before in this input'),
    "too deep": (b'{"id": 9, "text": ' + b"[" * 100_000 + b"\n", "nested too deeply"),
}


class TestRows:
    @pytest.mark.parametrize("kind", BAD_LINES)
    def test_a_bad_line_is_set_aside_and_the_rest_is_written(self, cli: Cli, kind: str) -> None:
        data, reason = BAD_LINES[kind]
        with cli.source.open("ab") as file:
            file.write(data)
        line = cli.refused(7, *cli.words())
        assert line.startswith("TooManyQuarantined: ")
        assert f"{cli.output}, but 1 were quarantined and 0 are allowed" in line
        assert "--max-quarantined" in line
        [row] = quarantined_in(cli.output)
        assert (row["file"], row["row"]) == ("good.jsonl", 11)
        assert reason in row["reason"]
        assert ids_of(cli.output)[:10] == [row["id"] for row in make_rows(10)]
        assert verify(cli.output).complete

    @pytest.mark.parametrize("kind", BAD_LINES)
    def test_a_bad_line_under_a_fail_policy_is_named(self, cli: Cli, kind: str) -> None:
        with cli.source.open("ab") as file:
            file.write(BAD_LINES[kind][0])
        policies = ("null_text", "empty_text", "wrong_type", "malformed", "too_long", "duplicate_id")
        words = [word for policy in policies for word in ("--set", f"rows.{policy}=fail")]
        line = cli.refused(3, *cli.words(*words))
        assert line.startswith(f"InputError: {cli.source}, row 11: ")
        assert BAD_LINES[kind][1] in line

    def test_bad_rows_that_are_allowed_are_told_and_are_no_error(
        self, cli: Cli, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_jsonl(cli.source, [*make_rows(10), {"id": "bad", "text": None}])
        assert embedmill(*cli.words("--max-quarantined", "1")) == 0
        assert "1 row quarantined, with reasons, in quarantine/" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (b"9\n", "the row has 1 field; the header has 2"),
            (b'9,"stone\n', "a quote that opens in this row is never closed"),
            (b"9,\xff\n", "not valid UTF-8"),
            (b",stone\n", '"id" is empty'),
        ],
    )
    def test_a_bad_csv_row_is_set_aside(self, cli: Cli, row: bytes, reason: str) -> None:
        source = cli.folder / "a.csv"
        source.write_bytes(b"id,text\n1,river\n" + row)
        cli.refused_input(7, source)
        assert reason in quarantined_in(cli.output)[0]["reason"]
        assert ids_of(cli.output) == ["1"]
