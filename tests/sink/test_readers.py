"""DuckDB, pandas and Arrow read the same rows and vectors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest

from embedmill.base.records import FloatArray
from embedmill.jobs.run import run
from tests.support.jobs import Row, ids_of, make_config, make_rows, vectors_of, write_jsonl
from tests.support.tiny_model import HIDDEN


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Write 51 rows in five parts, and two in quarantine."""
    folder = tmp_path_factory.mktemp("an output's folder")
    bad: list[Row] = [{"id": "null", "text": None}, {"id": "empty", "text": ""}]
    source = write_jsonl(folder / "a.jsonl", [*make_rows(50), *bad, {"id": "größe 漢字", "text": "stone"}])
    run(make_config(tiny_model, source, folder / "out", shard={"rows": 11}, rows={"max_quarantined": 2}), quiet=True)
    return folder / "out"


def in_duckdb(columns: str, output: Path) -> list[tuple[Any, ...]]:
    """Select columns of all parts."""
    parts = str(output / "*.parquet").replace("'", "''")
    table = f"read_parquet('{parts}', filename = true, file_row_number = true)"
    with duckdb.connect() as database:
        rows: list[tuple[Any, ...]] = database.execute(f"SELECT {columns} FROM {table}").fetchall()
    return rows


def test_duckdb_reads_the_same_ids_and_vectors(output: Path) -> None:
    rows = sorted(in_duckdb("filename, file_row_number, id, embedding", output))
    assert [row[2] for row in rows] == ids_of(output)
    np.testing.assert_array_equal(np.array([row[3] for row in rows], np.float32), vectors_of(output))


def test_duckdb_compares_vectors(output: Path) -> None:
    worst = "max(abs(list_cosine_similarity(embedding, embedding) - 1))"
    [(found, rows, width, ids)] = in_duckdb(f"{worst}, count(*), min(len(embedding)), count(DISTINCT id)", output)
    assert found < 1e-5
    assert (rows, width, ids) == (51, HIDDEN, 51)


def stacked(frame: pd.DataFrame) -> FloatArray:
    vectors: FloatArray = np.stack(frame["embedding"].to_list())
    return vectors


def test_pandas_reads_the_same_ids_and_vectors(output: Path) -> None:
    parts = sorted(output.glob("*.parquet"))
    frame = pd.concat([pd.read_parquet(part, engine="pyarrow") for part in parts])
    assert frame["id"].to_list() == ids_of(output)
    np.testing.assert_array_equal(stacked(frame), vectors_of(output))


def test_pandas_reads_all_parts_as_one_table(output: Path) -> None:
    assert len(pd.read_parquet(sorted(output.glob("*.parquet")), engine="pyarrow")) == 51


def test_an_arrow_dataset_of_the_parts_has_all_rows(output: Path) -> None:
    table = ds.dataset([str(path) for path in sorted(output.glob("*.parquet"))]).to_table()
    assert table.column("id").to_pylist() == ids_of(output)


def test_the_example_of_the_readme_reads_an_output_with_a_quarantine(output: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    [example] = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "read_parquet" in block]
    names: dict[str, Any] = {}
    exec(example.replace("out/corpus", output.as_posix()), names)
    assert len(names["table"]) == 51
