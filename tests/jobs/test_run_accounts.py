"""A run accounts for every row, and its numbers agree wherever they stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedmill.base.config import RunConfig
from embedmill.base.errors import InputError, TooManyQuarantined
from embedmill.jobs.run import run
from embedmill.sink.folder import read_entries, read_manifest
from embedmill.sink.verify import verify
from tests.support.jobs import (
    MANY,
    Row,
    files_of,
    ids_of,
    make_config,
    make_rows,
    parts_of,
    quarantined_in,
    read_output,
    write_jsonl,
)
from tests.support.systems import LEFT_LOCK
from tests.support.tiny_model import HIDDEN

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
    def test_a_failing_kind_ends_the_run_and_names_the_row(self, tmp_path: Path, tiny_model: Path, policy: str) -> None:
        line = [row["id"] for row in BAD_ROWS].index(POLICIES[policy][0]) + 1 if policy != "duplicate_id" else 8
        with pytest.raises(InputError, match=rf"bad\.jsonl, row {line}: "):
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
            *LEFT_LOCK,
            "part-00000.parquet",
            "part-00001.parquet",
            "part-00002.parquet",
            "quarantine",
            "quarantine/part-00000.jsonl",
            "quarantine/part-00001.jsonl",
            "quarantine/part-00002.jsonl",
        ]
