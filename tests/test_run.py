"""A whole run: what goes in comes out, once, in order, with every row accounted for."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.conductor import Embedder, embed, run
from pipeline.config import RunConfig, parse_config
from pipeline.errors import ConfigError, DeviceError, FingerprintMismatch, InputError, OutputError, TooManyQuarantined
from pipeline.records import FloatArray
from pipeline.report.progress import Progress
from pipeline.sink.ledger import Ledger, read_entries, read_manifest
from pipeline.sink.verify import verify
from tests.crash.jobs import (
    Row,
    assert_close,
    embedmill,
    files_of,
    ids_of,
    make_config,
    make_rows,
    parts_of,
    quarantined_in,
    read_output,
    tiny_bundle,
    vectors_of,
    words_of,
    write_jsonl,
)
from tests.tiny import HIDDEN, write_tiny_model

MANY = {"rows": {"max_quarantined": 1000}}


def texts_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["text"] for row in rows]


def embedded(model: Path, texts: list[str]) -> FloatArray:
    with Embedder(str(tiny_bundle(model))) as embedder:
        return embedder.embed(texts)


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
        run(make_config(tiny_model, tmp_path / name, tmp_path / "out", shard={"rows": 15}), quiet=True)
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
        assert sum(batches) == 2
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


BAD_ROWS: list[Row] = [
    {"id": "good", "text": "stone"},
    {"id": "null", "text": None},
    {"id": "absent"},
    {"id": "empty", "text": ""},
    {"id": "space", "text": " \n\t"},
    {"id": "number", "text": 7},
    {"id": "long", "text": "x" * 101},
    {"id": "good", "text": "river"},
    {"id": "last", "text": "garden"},
]
POLICIES = {
    "null_text": ["null", "absent"],
    "empty_text": ["empty", "space"],
    "wrong_type": ["number"],
    "too_long": ["long"],
    "duplicate_id": ["good"],
}


def bad_job(tmp_path: Path, model: Path, **rows: Any) -> RunConfig:
    source = write_jsonl(tmp_path / "bad.jsonl", BAD_ROWS)
    with source.open("a") as file:
        file.write('{"id": "half", "text": "st\n\n')
    return make_config(model, source, tmp_path / "out", rows=rows, limits={"text_bytes": 100}, shard={"rows": 4})


class TestBadRows:
    def test_bad_rows_are_set_aside_with_file_row_and_reason(self, tmp_path: Path, tiny_model: Path) -> None:
        run(bad_job(tmp_path, tiny_model, max_quarantined=8), quiet=True)
        assert ids_of(tmp_path / "out") == ["good", "last"]
        found = [(row["file"], row["row"], row["id"]) for row in quarantined_in(tmp_path / "out")]
        assert found == [
            ("bad.jsonl", 2, "null"),
            ("bad.jsonl", 3, "absent"),
            ("bad.jsonl", 4, "empty"),
            ("bad.jsonl", 5, "space"),
            ("bad.jsonl", 6, "number"),
            ("bad.jsonl", 7, "long"),
            ("bad.jsonl", 8, "good"),
            ("bad.jsonl", 10, None),
        ]
        reasons = [row["reason"] for row in quarantined_in(tmp_path / "out")]
        assert reasons[:5] == [
            '"text" is null',
            '"text" is absent',
            '"text" is empty',
            '"text" is only white space',
            '"text" is a number; expected a string',
        ]
        assert "not valid JSON" in reasons[-1]

    def test_an_excerpt_shows_at_most_200_characters(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", [{"id": 1, "text": 1, "more": "x" * 1000}])
        run(make_config(tiny_model, source, tmp_path / "out", **MANY), quiet=True)
        assert len(quarantined_in(tmp_path / "out")[0]["excerpt"]) == 200

    def test_one_more_than_allowed_ends_with_everything_written(self, tmp_path: Path, tiny_model: Path) -> None:
        with pytest.raises(TooManyQuarantined, match="8 were quarantined and 7 are allowed"):
            run(bad_job(tmp_path, tiny_model, max_quarantined=7), quiet=True)
        found = verify(tmp_path / "out")
        assert found.complete
        assert found.problems == []
        assert ids_of(tmp_path / "out") == ["good", "last"]

    def test_the_next_run_of_a_job_with_too_many_bad_rows_says_so_again(self, tmp_path: Path, tiny_model: Path) -> None:
        for _ in range(2):
            with pytest.raises(TooManyQuarantined):
                run(bad_job(tmp_path, tiny_model), quiet=True)

    def test_more_may_be_allowed_without_embedding_again(self, tmp_path: Path, tiny_model: Path) -> None:
        with pytest.raises(TooManyQuarantined):
            run(bad_job(tmp_path, tiny_model), quiet=True)
        before = parts_of(tmp_path / "out")
        result = run(bad_job(tmp_path, tiny_model, max_quarantined=8), quiet=True)
        assert result.rows_before == result.totals.rows_read
        assert parts_of(tmp_path / "out") == before

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_skipped_kind_is_only_counted(self, tmp_path: Path, tiny_model: Path, policy: str) -> None:
        result = run(bad_job(tmp_path, tiny_model, max_quarantined=8, **{policy: "skip"}), quiet=True)
        rows = {row["id"] for row in quarantined_in(tmp_path / "out")}
        assert not rows & set(POLICIES[policy])
        assert result.totals.rows_skipped == len(POLICIES[policy]) + 1, "the blank line is skipped too"

    @pytest.mark.parametrize("policy", POLICIES)
    def test_a_failing_kind_ends_the_run_and_names_the_line(
        self, tmp_path: Path, tiny_model: Path, policy: str
    ) -> None:
        line = [row["id"] for row in BAD_ROWS].index(POLICIES[policy][0]) + 1 if policy != "duplicate_id" else 8
        with pytest.raises(InputError, match=rf"bad\.jsonl, line {line}: "):
            run(bad_job(tmp_path, tiny_model, **{policy: "fail"}), quiet=True)

    def test_empty_texts_may_be_embedded(self, tmp_path: Path, tiny_model: Path) -> None:
        run(bad_job(tmp_path, tiny_model, max_quarantined=8, empty_text="embed"), quiet=True)
        assert ids_of(tmp_path / "out") == ["good", "empty", "space", "last"]

    def test_duplicate_ids_may_be_kept(self, tmp_path: Path, tiny_model: Path) -> None:
        run(bad_job(tmp_path, tiny_model, max_quarantined=8, duplicate_id="keep"), quiet=True)
        assert ids_of(tmp_path / "out") == ["good", "good", "last"]

    def test_an_input_of_bad_rows_only_has_all_its_rows_set_aside(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", [{"id": n, "text": None} for n in range(5)])
        with pytest.raises(TooManyQuarantined):
            run(make_config(tiny_model, source, tmp_path / "out", shard={"rows": 2}), quiet=True)
        assert verify(tmp_path / "out").problems == []
        assert len(quarantined_in(tmp_path / "out")) == 5
        assert ids_of(tmp_path / "out") == []


class TestNumbers:
    def test_result_manifest_ledger_and_files_agree(self, tmp_path: Path, tiny_model: Path) -> None:
        result = run(bad_job(tmp_path, tiny_model, max_quarantined=8), quiet=True)
        totals, entries = result.totals, list(read_entries(tmp_path / "out"))
        table, manifest = read_output(tmp_path / "out"), read_manifest(tmp_path / "out")
        assert manifest is not None
        assert manifest.totals == totals
        assert totals.rows_read == 11
        assert totals.rows_read == totals.rows_written + totals.rows_quarantined + totals.rows_skipped
        assert totals.vectors == totals.rows_written == table.num_rows
        assert totals.tokens == sum(table.column("n_tokens").to_pylist())
        assert totals.padded_tokens >= totals.tokens
        assert totals.bytes == sum((tmp_path / "out" / entry.file).stat().st_size for entry in entries)
        assert totals.shards == len(entries) == len(manifest.shards) == 3
        assert result.rows_before == 0

    def test_the_manifest_says_which_model_and_which_options(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(3))
        result = run(make_config(tiny_model, source, tmp_path / "out", shard={"rows": 2}), quiet=True)
        manifest = read_manifest(tmp_path / "out")
        assert manifest is not None
        assert manifest.identity == result.identity
        assert manifest.fingerprint["shard.rows"] == 2
        assert list(manifest.fingerprint["input.files"]) == ["a.jsonl"]
        assert manifest.model["dim"] == HIDDEN

    def test_a_finished_output_holds_the_files_of_the_design_and_no_others(
        self, tmp_path: Path, tiny_model: Path
    ) -> None:
        run(bad_job(tmp_path, tiny_model, max_quarantined=8), quiet=True)
        assert [name for name in files_of(tmp_path / "out") if name != "_report.html"] == [
            "_ledger",
            "_ledger/00000.json",
            "_ledger/00001.json",
            "_ledger/00002.json",
            "_ledger/job.json",
            "_manifest.json",
            "_run.lock",
            "part-00000.parquet",
            "part-00001.parquet",
            "part-00002.parquet",
            "quarantine",
            "quarantine/part-00000.jsonl",
            "quarantine/part-00001.jsonl",
            "quarantine/part-00002.jsonl",
        ]


class TestAgain:
    def test_a_second_run_computes_nothing_and_says_so(
        self, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(20))
        words = words_of(make_config(tiny_model, source, tmp_path / "out"))
        assert embedmill(*words) == 0
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
        capsys.readouterr()
        assert embedmill(*words) == 0
        assert capsys.readouterr().out.startswith("nothing to do: all 20 rows are committed in ")
        after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
        del before[tmp_path / "out" / "_run.lock"], after[tmp_path / "out" / "_run.lock"]
        assert after == before

    @pytest.mark.parametrize(
        "engine", [{"streams": 1}, {"streams": 4}, {"threads": 3}, {"budget_tokens": 40}, {"provider": "cpu"}]
    )
    def test_a_run_goes_on_with_another_engine(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, Any]
    ) -> None:
        rows = make_rows(40)
        source = write_jsonl(tmp_path / "a.jsonl", rows)
        config = make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10})
        stop_at_commit(monkeypatch, 2)
        with pytest.raises(KeyboardInterrupt):
            run(config, quiet=True)
        monkeypatch.undo()
        other = make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10}, engine=engine)
        assert run(other, quiet=True).rows_before == 20
        assert ids_of(tmp_path / "out") == [row["id"] for row in rows]
        assert_close(vectors_of(tmp_path / "out"), embedded(tiny_model, texts_of(rows)))

    def test_input_and_output_may_be_moved_between_runs(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "in" / "a.jsonl", make_rows(5))
        run(make_config(tiny_model, source, tmp_path / "out"), quiet=True)
        (tmp_path / "in").rename(tmp_path / "there")
        (tmp_path / "out").rename(tmp_path / "here")
        result = run(make_config(tiny_model, tmp_path / "there" / "a.jsonl", tmp_path / "here"), quiet=True)
        assert result.rows_before == 5

    def test_a_changed_input_file_is_refused(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(5))
        config = make_config(tiny_model, source, tmp_path / "out")
        run(config, quiet=True)
        before = parts_of(tmp_path / "out")
        write_jsonl(source, make_rows(5, seed=1))
        with pytest.raises(FingerprintMismatch, match=r"a\.jsonl has changed") as refused:
            run(config, quiet=True)
        assert refused.value.field == "input.files"
        assert parts_of(tmp_path / "out") == before

    def test_a_new_input_file_is_refused(self, tmp_path: Path, tiny_model: Path) -> None:
        write_jsonl(tmp_path / "in" / "a.jsonl", make_rows(5))
        config = make_config(tiny_model, tmp_path / "in", tmp_path / "out")
        run(config, quiet=True)
        write_jsonl(tmp_path / "in" / "b.jsonl", make_rows(5, seed=1))
        with pytest.raises(FingerprintMismatch, match=r"b\.jsonl is new"):
            run(config, quiet=True)


BASE: dict[str, Any] = {
    "columns": {"carry": ["kind"]},
    "text": {"chunk_tokens": 16, "chunk_overlap": 2},
}
# Every option that changes the output, with a value other than the one above or the default.
OTHER: dict[str, Any] = {
    "input.format": "jsonl",
    "input.csv_delimiter": ";",
    "columns.text": "title",
    "columns.id": "title",
    "columns.carry": [],
    "columns.types": {"kind": "int64"},
    "rows.null_text": "skip",
    "rows.empty_text": "embed",
    "rows.wrong_type": "skip",
    "rows.malformed": "skip",
    "rows.too_long": "skip",
    "rows.duplicate_id": "keep",
    "shard.rows": 7,
    "shard.text_bytes": 1000,
    "text.prompt": "the ",
    "text.prompt_name": "query",
    "text.max_tokens": 20,
    "text.chunk_tokens": 17,
    "text.chunk_overlap": 3,
    "output.compression": "none",
    "limits.record_bytes": 1000,
    "limits.text_bytes": 1000,
}
FREE = {
    "model",
    "input.paths",
    "rows.max_quarantined",
    "engine.provider",
    "engine.streams",
    "engine.threads",
    "engine.budget_tokens",
    "output.path",
}


@pytest.fixture(scope="module")
def prompted_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "prompted", prompts={"query": "the river "})


class TestOtherJobs:
    def with_option(self, config: RunConfig, option: str, value: Any) -> RunConfig:
        values = msgspec.to_builtins(config)
        table, _, name = option.rpartition(".")
        (values[table] if table else values)[name] = value
        return parse_config(values, place="the test")

    def test_every_option_is_either_free_or_known_to_change_the_output(self) -> None:
        options = set()
        for key, value in msgspec.to_builtins(RunConfig()).items():
            options |= {f"{key}.{name}" for name in value} if isinstance(value, dict) else {key}
        assert options == set(OTHER) | FREE

    @pytest.mark.parametrize("option", OTHER)
    def test_a_run_with_another_option_is_refused_by_its_name(
        self, tmp_path: Path, prompted_model: Path, option: str
    ) -> None:
        rows = [row | {"title": "river", "kind": "x"} for row in make_rows(5)]
        config = make_config(prompted_model, write_jsonl(tmp_path / "a.jsonl", rows), tmp_path / "out", **BASE)
        run(config, quiet=True)
        before = parts_of(tmp_path / "out")
        with pytest.raises(FingerprintMismatch) as refused:
            run(self.with_option(config, option, OTHER[option]), quiet=True)
        assert refused.value.field == option
        assert f"`{option}`" in str(refused.value)
        assert parts_of(tmp_path / "out") == before

    def test_a_run_with_another_model_is_refused(self, tmp_path: Path, tiny_model: Path) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(5))
        run(make_config(tiny_model, source, tmp_path / "out"), quiet=True)
        other = write_tiny_model(tmp_path / "other", seed=1)
        with pytest.raises(FingerprintMismatch, match=r"model\.identity"):
            run(make_config(other, source, tmp_path / "out"), quiet=True)

    def test_a_folder_of_someone_else_is_refused_before_anything_is_read(
        self, tmp_path: Path, tiny_model: Path
    ) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.doc").touch()
        with pytest.raises(OutputError, match=r"thesis\.doc"):
            run(make_config(tiny_model, tmp_path / "absent.jsonl", tmp_path / "out"), quiet=True)
        assert files_of(tmp_path / "out") == ["thesis.doc"]


def stop_at_commit(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The user interrupts the run when `number` shards are committed."""
    commit = Ledger.commit

    def interrupted(ledger: Ledger, *arguments: Any) -> Any:
        if len(ledger.entries) == number:
            raise KeyboardInterrupt
        return commit(ledger, *arguments)

    monkeypatch.setattr(Ledger, "commit", interrupted)


class TestFailures:
    """Shards of ten rows, one row per batch: batch 25 is of the third shard."""

    def job(self, tmp_path: Path, model: Path, name: str) -> RunConfig:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(60))
        return make_config(
            model, source, tmp_path / name, shard={"rows": 10}, engine={"budget_tokens": 1, "streams": 1}
        )

    def fail_at_batch(self, monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], Any]) -> None:
        batches: list[int] = []
        session_run = onnxruntime.InferenceSession.run

        def counted(*arguments: Any) -> Any:
            batches.append(1)
            return action() if len(batches) == number else session_run(*arguments)

        monkeypatch.setattr(onnxruntime.InferenceSession, "run", counted)

    def fail(self) -> Any:
        raise RuntimeError("the device is gone\nand more")

    def test_an_engine_error_is_a_device_error_in_one_line(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fail_at_batch(monkeypatch, 25, self.fail)
        with pytest.raises(DeviceError, match=r"the device is gone; the run can be resumed$"):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)

    @pytest.mark.parametrize(("batch", "committed"), [(1, 0), (10, 0), (11, 1), (25, 2), (60, 5)])
    def test_the_shards_before_an_engine_error_are_committed(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, batch: int, committed: int
    ) -> None:
        self.fail_at_batch(monkeypatch, batch, self.fail)
        with pytest.raises(DeviceError):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert [entry.ordinal for entry in read_entries(tmp_path / "out")] == list(range(committed))
        assert verify(tmp_path / "out").problems == []

    def test_after_an_engine_error_a_new_run_ends_bit_by_bit_as_if_there_had_been_none(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(self.job(tmp_path, tiny_model, "undisturbed"), quiet=True)
        self.fail_at_batch(monkeypatch, 25, self.fail)
        with pytest.raises(DeviceError):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert parts_of(tmp_path / "out") == parts_of(tmp_path / "undisturbed")

    @pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
    def test_a_vector_that_cannot_be_one_is_an_engine_error(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, value: float
    ) -> None:
        self.fail_at_batch(monkeypatch, 25, lambda: [np.full((1, HIDDEN), value, np.float32)])
        with pytest.raises(DeviceError, match="not finite or not normalised"):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert [entry.ordinal for entry in read_entries(tmp_path / "out")] == [0, 1]

    def test_a_bad_row_under_a_fail_policy_keeps_the_shards_before_it(self, tmp_path: Path, tiny_model: Path) -> None:
        rows = [*make_rows(25), {"id": "bad", "text": None}, *make_rows(40)[26:]]
        source = write_jsonl(tmp_path / "a.jsonl", rows)
        config = make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10}, rows={"null_text": "fail"})
        with pytest.raises(InputError, match="line 26"):
            run(config, quiet=True)
        assert [entry.ordinal for entry in read_entries(tmp_path / "out")] == [0, 1]

    def test_an_interrupt_leaves_no_thread_running_and_can_be_resumed(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(self.job(tmp_path, tiny_model, "undisturbed"), quiet=True)
        advance, advances = Progress.advance, []

        def interrupt(progress: Progress, rows: float, tokens: int) -> None:
            advances.append(rows)
            if len(advances) == 25:
                os.kill(os.getpid(), signal.SIGINT)
            advance(progress, rows, tokens)

        monkeypatch.setattr(Progress, "advance", interrupt)
        before = set(threading.enumerate())
        with pytest.raises(KeyboardInterrupt):
            run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert set(threading.enumerate()) == before
        run(self.job(tmp_path, tiny_model, "out"), quiet=True)
        assert parts_of(tmp_path / "out") == parts_of(tmp_path / "undisturbed")

    def test_no_thread_is_left_after_a_run_or_an_error(
        self, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = set(threading.enumerate())
        run(self.job(tmp_path, tiny_model, "one"), quiet=True)
        assert set(threading.enumerate()) == before
        self.fail_at_batch(monkeypatch, 25, self.fail)
        with pytest.raises(DeviceError):
            run(self.job(tmp_path, tiny_model, "other"), quiet=True)
        assert set(threading.enumerate()) == before


class TestEmbed:
    def test_texts_get_vectors_in_their_order(self, tiny_model: Path) -> None:
        texts = texts_of(make_rows(50))
        with Embedder(str(tiny_bundle(tiny_model))) as embedder:
            together = embedder.embed(texts)
            alone = np.concatenate([embedder.embed([text]) for text in texts])
        assert together.shape == (50, HIDDEN)
        assert together.dtype == np.float32
        assert_close(together, alone)

    def test_no_texts_make_no_vectors(self, tiny_model: Path) -> None:
        assert embed([], model=str(tiny_bundle(tiny_model))).shape == (0, HIDDEN)

    def test_the_short_form_takes_a_prompt(self, tiny_model: Path) -> None:
        vectors = embed(["stone"], model=str(tiny_bundle(tiny_model)), prompt="the river ")
        assert_close(vectors, embedded(tiny_model, ["the river stone"]))

    @pytest.mark.parametrize(("texts", "message"), [("stone", "one string"), (["a", 7], r"texts\[1\] is int")])
    def test_what_is_no_list_of_strings_is_refused(self, tiny_model: Path, texts: Any, message: str) -> None:
        with pytest.raises(InputError, match=message):
            embed(texts, model=str(tiny_bundle(tiny_model)))


def test_an_option_given_by_set_reaches_the_run(tmp_path: Path, tiny_model: Path) -> None:
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(20))
    words = words_of(make_config(tiny_model, source, tmp_path / "out"))
    assert embedmill(*words, "--quiet", "--set", "shard.rows=5", "--set", "output.compression=none") == 0
    job = json.loads((tmp_path / "out" / "_ledger" / "job.json").read_text())
    assert len(job["shards"]) == 4
    assert job["fingerprint"]["output.compression"] == "none"
