"""A second run finishes the first one or finds nothing to do; that of another job is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from embedmill.base.config import RunConfig
from embedmill.base.configfile import parse_config
from embedmill.base.errors import FingerprintMismatch, OutputError
from embedmill.jobs.run import run
from tests.support.jobs import (
    assert_close,
    embedded,
    embedmill,
    files_of,
    ids_of,
    make_config,
    make_rows,
    parts_of,
    stop_at_commit,
    texts_of,
    vectors_of,
    words_of,
    write_jsonl,
)
from tests.support.outputs import FREE
from tests.support.tiny_model import write_tiny_model


def times_of(output: Path) -> dict[Path, int]:
    """When each file of an output was written, but for the lock."""
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "_run.lock")
    return {path: path.stat().st_mtime_ns for path in files}


class TestAgain:
    def test_a_second_run_computes_nothing_and_says_so(
        self, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(20))
        words = words_of(make_config(tiny_model, source, tmp_path / "out"))
        assert embedmill(*words) == 0
        before = times_of(tmp_path / "out")
        capsys.readouterr()
        assert embedmill(*words) == 0
        assert capsys.readouterr().out.startswith("nothing to do: all 20 rows are committed in ")
        assert times_of(tmp_path / "out") == before

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
    "input": {"csv_header": False},
    "columns": {"carry": ["kind"]},
    "text": {"chunk_tokens": 16, "chunk_overlap": 2},
}
# Every option that changes the output, with a value other than the one above or the default.
OTHER: dict[str, Any] = {
    "input.format": "jsonl",
    "input.encoding": "latin-1",
    "input.csv_delimiter": ";",
    "input.csv_quote": "",
    "input.csv_escape": "\\",
    "input.csv_header": True,
    "columns.text": "title",
    "columns.id": "title",
    "columns.carry": [],
    "columns.types": {"kind": "int64"},
    "columns.carry_as": {"kind": "sort"},
    "columns.names": ["id", "text"],
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
    "limits.id_bytes": 2000,
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
