"""CSV and TSV give the rows that DuckDB and pandas read from the same files."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from tests.support.corpora import Corpus

PIECES = [
    "word",
    "é",
    "日本",
    '5" disk',
    "a, b",
    "x;y",
    "it's",
    "  ",
    '""',
    "\\",
    "C:\\new",
    "#",
    "NULL",
    "1e5",
    "N/A",
    "-",
]
LINES = ["two\nlines", "two\r\nlines", "a\ttab", '"all"']
# How files are written (csv.writer), read here (input), by DuckDB and by pandas.
DIALECTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "quoted.csv": ({}, {}, {}, {}),
    "all-quoted.csv": ({"quoting": csv.QUOTE_ALL}, {}, {}, {}),
    "semicolon.csv": ({"delimiter": ";"}, {}, {"delim": ";"}, {"sep": ";"}),
    "escaped.csv": (
        # DuckDB leaves escapes outside of quotes as they are.
        {"doublequote": False, "escapechar": "\\", "quoting": csv.QUOTE_ALL},
        {"csv_escape": "\\"},
        {"escape": "\\"},
        {"escapechar": "\\", "doublequote": False},
    ),
    "plain.tsv": ({"plain": True}, {}, {"delim": "\t", "quote": ""}, {"sep": "\t", "quoting": csv.QUOTE_NONE}),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("files", [6, pytest.param(40, marks=pytest.mark.hostile)])
def test_files_give_the_rows_that_others_read(corpus: Corpus, name: str, files: int) -> None:
    written, ours, duck, pandas = DIALECTS[name]
    for seed in range(files):
        chance = random.Random(f"{name} {seed}")
        path = corpus.write(name, document(chance, **written))
        read = corpus.job(name, input=ours, rows={"empty_text": "embed"}, columns={"carry": ["more"]}).read()
        rows = list(zip(read.ids, read.texts, (cell or "" for cell in read.carried["more"].to_pylist()), strict=True))
        assert (read.rejected, read.rows_skipped) == ([], 0)
        assert rows == by_pandas(path, pandas), f"seed {seed}"
        assert rows == by_duckdb(path, duck), f"seed {seed}"


def document(chance: random.Random, *, plain: bool = False, **options: Any) -> str:
    """A table of ids, texts and more, with a header."""
    pieces = PIECES if plain else PIECES + LINES
    rows = [[str(n), *("".join(chance.choices(pieces, k=chance.randint(1, 4))) for _ in "ab")] for n in range(30)]
    table = [["id", "text", "more"], *rows]
    if plain:
        return "".join("\t".join(row) + "\n" for row in table)
    out = io.StringIO()
    csv.writer(out, lineterminator=chance.choice(["\n", "\r\n"]), **options).writerows(table)
    return out.getvalue()


def by_pandas(path: Path, options: dict[str, Any]) -> list[tuple[str, ...]]:
    """All cells as text."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False, **options)
    return [tuple(row) for row in frame.itertuples(index=False, name=None)]


def by_duckdb(path: Path, options: dict[str, Any]) -> list[tuple[str, ...]]:
    """All cells as text, null and empty alike."""
    given = {"delim": ",", "quote": '"', "escape": '"'} | options
    dialect = ", ".join(f"{key} = '{value}'" for key, value in given.items())
    columns = "{'id': 'VARCHAR', 'text': 'VARCHAR', 'more': 'VARCHAR'}"
    source = f"read_csv('{path}', header = true, auto_detect = false, columns = {columns}, {dialect})"
    cells = ", ".join(f"coalesce({name}, '')" for name in ("id", "text", "more"))
    return [tuple(row) for row in duckdb.connect().execute(f"SELECT {cells} FROM {source}").fetchall()]
