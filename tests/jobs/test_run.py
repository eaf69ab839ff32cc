"""A whole run: what goes in comes out, once, in order."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.base.errors import ConfigError
from embedmill.jobs.run import run
from embedmill.model import canaries
from embedmill.sink.verify import verify
from tests.support.jobs import (
    MANY,
    assert_close,
    embedded,
    embedmill,
    ids_of,
    make_config,
    make_rows,
    read_output,
    texts_of,
    vectors_of,
    words_of,
    write_jsonl,
)
from tests.support.tiny_model import HIDDEN


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=7)


def write_csv(path: Path, rows: list[dict[str, Any]], *, delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_packed(path: Path, rows: list[dict[str, Any]]) -> None:
    plain = path.with_suffix("")
    write_csv(plain, rows) if plain.suffix == ".csv" else write_jsonl(plain, rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as packed:
            packed.write(plain.read_bytes())
    plain.unlink()


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "corpus.parquet": write_parquet,
    "corpus.jsonl": write_jsonl,
    "corpus.ndjson": write_jsonl,
    "corpus.csv": write_csv,
    "corpus.tsv": lambda path, rows: write_csv(path, rows, delimiter="\t"),
    "corpus.jsonl.gz": write_packed,
    "corpus.jsonl.zst": write_packed,
    "corpus.csv.gz": write_packed,
    "corpus.csv.zst": write_packed,
}
AWKWARD = ["two\nlines", 'a "quoted" one', "a,b;c\td", "größe 漢字 🌍", "x" * 5000, " spaces around "]


class TestRows:
    @pytest.mark.parametrize("name", WRITERS)
    def test_every_format_gives_the_rows_of_the_input_in_their_order(
        self, tmp_path: Path, tiny_model: Path, name: str
    ) -> None:
        rows = make_rows(40) + [{"id": f"awkward-{n}", "text": text} for n, text in enumerate(AWKWARD)]
        WRITERS[name](tmp_path / name, rows)
        options = {"shard": {"rows": 15}, "input": {"csv_quote": '"'}}
        run(make_config(tiny_model, tmp_path / name, tmp_path / "out", **options), quiet=True)
        assert ids_of(tmp_path / "out") == [row["id"] for row in rows]
        assert_close(vectors_of(tmp_path / "out"), embedded(tiny_model, texts_of(rows)))

    def test_many_small_files_are_read_in_the_order_of_their_names(self, tmp_path: Path, tiny_model: Path) -> None:
        rows = make_rows(120)
        for number in range(60):
            write_jsonl(tmp_path / "in" / f"{number:03d}.jsonl", rows[2 * number : 2 * number + 2])
        result = run(make_config(tiny_model, tmp_path / "in", tmp_path / "out", shard={"rows": 50}), quiet=True)
        assert ids_of(tmp_path / "out") == [row["id"] for row in rows]
        assert result.totals.shards == 3

    def test_folders_files_and_formats_mix(self, tmp_path: Path, tiny_model: Path) -> None:
        rows = make_rows(30)
        (tmp_path / "a" / "deep").mkdir(parents=True)
        write_parquet(tmp_path / "a" / "1.parquet", rows[:10])
        write_csv(tmp_path / "a" / "deep" / "2.csv", rows[10:20])
        write_jsonl(tmp_path / "b.jsonl", rows[20:])
        run(make_config(tiny_model, [tmp_path / "a", tmp_path / "b.jsonl"], tmp_path / "out"), quiet=True)
        assert ids_of(tmp_path / "out") == [row["id"] for row in rows]

    def test_names_may_have_spaces_and_any_letters(self, tmp_path: Path, tiny_model: Path) -> None:
        rows = make_rows(5)
        source = write_jsonl(tmp_path / "große Daten" / "漢字 🌍's [1].jsonl", rows)
        output = tmp_path / "out put" / "für alle"
        run(make_config(tiny_model, source, output), quiet=True)
        assert ids_of(output) == [row["id"] for row in rows]
        assert verify(output).problems == []

    def test_rows_without_an_id_are_named_by_file_and_row(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", [{"text": "stone"}, {"text": ""}, {"text": "river"}])
        run(make_config(tiny_model, source, tmp_path / "out", **MANY), quiet=True)
        assert ids_of(tmp_path / "out") == ["a.jsonl:1", "a.jsonl:3"]

    def test_equal_texts_get_equal_vectors_and_are_computed_once(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        texts = ["stone bridge", "garden", "stone bridge", "stone bridge", "garden"]
        source = write_jsonl(tmp_path / "a.jsonl", [{"id": n, "text": text} for n, text in enumerate(texts)])
        batches: list[int] = []
        session_run = onnxruntime.InferenceSession.run

        def counted(session: Any, outputs: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            batches.append(len(inputs["input_ids"]))
            return session_run(session, outputs, inputs, *rest)

        monkeypatch.setattr(onnxruntime.InferenceSession, "run", counted)
        run(make_config(tiny_model, source, tmp_path / "out"), quiet=True)
        vectors = vectors_of(tmp_path / "out")
        assert sum(batches) == len(canaries.TEXTS) + 2
        for number, text in enumerate(texts):
            np.testing.assert_array_equal(vectors[number], vectors[texts.index(text)])

    def test_token_counts_truncation_and_hashes_stand_beside_the_vectors(
        self, tmp_path: Path, tiny_model: Path
    ) -> None:
        rows = [{"id": 1, "text": "stone bridge"}, {"id": 2, "text": "river " * 99}]
        source = write_jsonl(tmp_path / "a.jsonl", rows)
        run(make_config(tiny_model, source, tmp_path / "out"), quiet=True)
        table = read_output(tmp_path / "out")
        assert table.column("n_tokens").to_pylist() == [4, 32]
        assert table.column("truncated").to_pylist() == [False, True]
        assert table.column("text_hash")[0].as_py() == hashlib.sha256(b"stone bridge").hexdigest()

    def test_carried_columns_stand_beside_the_vectors(self, tmp_path: Path, tiny_model: Path) -> None:
        table = pa.table(
            {
                "id": ["a", "b", "c"],
                "text": ["stone", None, "river"],
                "year": pa.array([1999, 2000, None], pa.int16()),
                "tags": [["x", "y"], [], None],
            }
        )
        pq.write_table(table, tmp_path / "a.parquet")
        config = make_config(
            tiny_model, tmp_path / "a.parquet", tmp_path / "out", columns={"carry": ["tags", "year"]}, **MANY
        )
        run(config, quiet=True)
        written = read_output(tmp_path / "out")
        assert written.column_names[-2:] == ["tags", "year"]
        assert written.select(["id", "tags", "year"]).to_pylist() == [
            {"id": "a", "tags": ["x", "y"], "year": 1999},
            {"id": "c", "tags": None, "year": None},
        ]
        assert written.schema.field("year").type == pa.int16()

    def test_the_output_has_the_columns_of_the_design(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(3))
        run(make_config(tiny_model, source, tmp_path / "out"), quiet=True)
        assert read_output(tmp_path / "out").schema.remove_metadata() == pa.schema(
            [
                ("id", pa.string()),
                ("embedding", pa.list_(pa.float32(), HIDDEN)),
                ("n_tokens", pa.int32()),
                ("truncated", pa.bool_()),
                ("text_hash", pa.string()),
            ]
        )

    def test_an_input_without_rows_is_a_complete_output_without_rows(self, tmp_path: Path, tiny_model: Path) -> None:
        (tmp_path / "a.jsonl").touch()
        result = run(make_config(tiny_model, tmp_path / "a.jsonl", tmp_path / "out"), quiet=True)
        assert result.totals.rows_read == 0
        assert verify(tmp_path / "out").complete

    def test_a_prompt_is_put_before_every_text(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "text": "stone"}])
        run(make_config(tiny_model, source, tmp_path / "out", text={"prompt": "the river "}), quiet=True)
        assert_close(vectors_of(tmp_path / "out"), embedded(tiny_model, ["the river stone"]))


class TestChunks:
    TEXT = " ".join(["river", "stone", "window", "garden", "music"] * 8)

    def chunked(self, tmp_path: Path, model: Path, rows: list[dict[str, Any]], **text: int) -> pa.Table:
        source = write_jsonl(tmp_path / "a.jsonl", rows)
        run(make_config(model, source, tmp_path / "out", text={"chunk_tokens": 12, **text}, **MANY), quiet=True)
        return read_output(tmp_path / "out")

    def test_chunks_are_numbered_within_their_document(self, tmp_path: Path, tiny_model: Path) -> None:
        rows = [{"id": "long", "text": self.TEXT}, {"id": "short", "text": "stone"}, {"id": "more", "text": self.TEXT}]
        table = self.chunked(tmp_path, tiny_model, rows)
        assert table.column("id").to_pylist() == ["long"] * 4 + ["short"] + ["more"] * 4
        assert table.column("chunk").to_pylist() == [0, 1, 2, 3, 0, 0, 1, 2, 3]

    def test_the_characters_of_a_chunk_are_the_text_that_was_embedded(self, tmp_path: Path, tiny_model: Path) -> None:
        table = self.chunked(tmp_path, tiny_model, [{"id": 1, "text": f"größe 漢字 {self.TEXT}"}])
        ranges = zip(table.column("char_start").to_pylist(), table.column("char_end").to_pylist(), strict=True)
        slices = [f"größe 漢字 {self.TEXT}"[start:stop] for start, stop in ranges]
        assert_close(vectors_of(tmp_path / "out"), embedded(tiny_model, slices))
        assert " ".join(slices) == f"größe 漢字 {self.TEXT}"

    def test_chunks_overlap_by_so_many_tokens(self, tmp_path: Path, tiny_model: Path) -> None:
        table = self.chunked(tmp_path, tiny_model, [{"id": 1, "text": self.TEXT}], chunk_overlap=4)
        starts, stops = table.column("char_start").to_pylist(), table.column("char_end").to_pylist()
        shared = [self.TEXT[start:stop].split() for start, stop in zip(starts[1:], stops[:-1], strict=True)]
        assert {len(words) for words in shared} == {4}

    def test_rows_are_conserved_though_there_are_more_vectors(self, tmp_path: Path, tiny_model: Path) -> None:
        rows = [{"id": 1, "text": self.TEXT}, {"id": 2, "text": ""}, {"id": 3, "text": self.TEXT}]
        self.chunked(tmp_path, tiny_model, rows)
        totals = verify(tmp_path / "out").totals
        assert (totals.rows_read, totals.rows_written, totals.rows_quarantined, totals.vectors) == (3, 2, 1, 8)

    def test_carried_columns_are_repeated_for_each_chunk(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "text": self.TEXT, "kind": "x"}])
        config = make_config(
            tiny_model, source, tmp_path / "out", text={"chunk_tokens": 12}, columns={"carry": ["kind"]}
        )
        run(config, quiet=True)
        assert read_output(tmp_path / "out").column("kind").to_pylist() == ["x"] * 4

    def test_chunks_longer_than_the_model_takes_are_refused(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(1))
        with pytest.raises(ConfigError, match="chunk_tokens"):
            run(make_config(tiny_model, source, tmp_path / "out", text={"chunk_tokens": 33}), quiet=True)


def test_an_option_given_by_set_reaches_the_run(tmp_path: Path, tiny_model: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(20))
    words = words_of(make_config(tiny_model, source, tmp_path / "out"))
    assert embedmill(*words, "--quiet", "--set", "shard.rows=5", "--set", "output.compression=none") == 0
    job = json.loads((tmp_path / "out" / "_ledger" / "job.json").read_text())
    assert len(job["shards"]) == 4
    assert job["fingerprint"]["output.compression"] == "none"
