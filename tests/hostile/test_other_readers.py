"""Other programs read the output folder as it is: the same counts, ids and vectors (make readers)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from embedmill.jobs.run import run
from tests.support.jobs import ids_of, make_config, make_rows, vectors_of, write_jsonl

pytestmark = [pytest.mark.hostile, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Fifty rows in five parts."""
    folder = tmp_path_factory.mktemp("an output's folder")
    source = write_jsonl(folder / "a.jsonl", make_rows(50))
    run(make_config(tiny_model, source, folder / "out", shard={"rows": 11}), quiet=True)
    return folder / "out"


def assert_same(output: Path, table: pa.Table) -> None:
    """Rows in any order of the parts."""
    found = dict(zip(table.column("id").to_pylist(), table.column("embedding").to_pylist(), strict=True))
    ids = ids_of(output)
    assert table.num_rows == len(ids)
    np.testing.assert_array_equal(np.array([found[id] for id in ids], np.float32), vectors_of(output))


def test_polars_reads_the_same_ids_and_vectors(output: Path) -> None:
    polars = pytest.importorskip("polars")
    assert_same(output, polars.read_parquet(output / "*.parquet").to_arrow())


def test_hugging_face_datasets_reads_the_same_ids_and_vectors(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    parts = [str(path) for path in sorted(output.glob("*.parquet"))]
    loaded = datasets.load_dataset("parquet", data_files=parts, split="train", cache_dir=str(tmp_path / "cache"))
    assert_same(output, loaded.with_format("arrow")[:])


def test_lancedb_takes_the_parts_as_a_table_and_finds_a_vector(output: Path, tmp_path: Path) -> None:
    lancedb = pytest.importorskip("lancedb")
    parts = ds.dataset([str(path) for path in sorted(output.glob("*.parquet"))])
    table = lancedb.connect(str(tmp_path / "lance")).create_table("documents", parts.to_table())
    assert_same(output, table.to_arrow())
    [nearest] = table.search(vectors_of(output)[7], vector_column_name="embedding").limit(1).to_list()
    assert nearest["id"] == ids_of(output)[7]
