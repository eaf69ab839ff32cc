"""Whatever is wrong with the input, one sentence says what, where and what to do; nothing committed is lost."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.conductor import run
from pipeline.engine.session import pad
from pipeline.records import Batch, Tokens
from pipeline.sink.ledger import Ledger, read_entries
from pipeline.sink.verify import verify
from tests.crash.jobs import (
    embedmill,
    finish,
    ids_of,
    make_config,
    make_rows,
    parts_of,
    quarantined_in,
    start,
    tiny_bundle,
    words_of,
    write_jsonl,
)
from tests.tiny import bert_config, write_json, write_tiny_model


class Cli:
    """The command line in this process, on a job of ten good rows in `folder`."""

    def __init__(self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.model = model
        self.source = write_jsonl(folder / "good.jsonl", make_rows(10))
        self._capsys = capsys

    def words(self, *more: str | Path, source: Path | None = None) -> list[str | Path]:
        config = make_config(self.model, source or self.source, self.output, shard={"rows": 5})
        return [*words_of(config), "--quiet", *more]

    def refused(self, code: int, *words: str | Path) -> str:
        """The one line on standard error with which a command must end."""
        assert embedmill(*words) == code
        told = self._capsys.readouterr()
        assert told.out == ""
        lines: list[str] = told.err.splitlines()
        assert len(lines) == 1, told.err
        assert "Traceback" not in lines[0]
        return lines[0]

    def refused_input(self, code: int, source: Path, *words: str | Path) -> str:
        """The same, with another input than the good one."""
        return self.refused(code, *self.words(*words, source=source))


@pytest.fixture
def cli(tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(tmp_path, tiny_model, capsys)


class TestConfig:
    def test_an_unknown_key_is_named_with_the_nearest_one(self, cli: Cli) -> None:
        config = cli.folder / "job.toml"
        config.write_text('[columns]\ntxt = "body"\n')
        line = cli.refused(2, "run", config)
        assert line == f"ConfigError: {config}: unknown key `columns.txt`; did you mean `columns.text`?"

    def test_an_unknown_key_on_the_command_line_is_named_too(self, cli: Cli) -> None:
        line = cli.refused(2, *cli.words("--set", "shard.row=5"))
        assert "unknown key `shard.row`; did you mean `shard.rows`?" in line

    @pytest.mark.parametrize(
        ("setting", "told"),
        [
            ("shard.rows=0", "`shard.rows`"),
            ("shard.rows=many", "`shard.rows`"),
            ("rows.null_text=drop", "`rows.null_text`"),
            ("shard=5", "`shard` is a table"),
            ("shard.rows", "expected KEY=VALUE"),
            ("model.name=x", "`model`"),
            ('columns.carry=["id"]', "'id'"),
            ("text.chunk_overlap=3", "`text.chunk_overlap` needs `text.chunk_tokens`"),
            ("text.max_tokens=99", "`text.max_tokens` = 99, but tiny takes 32 at most"),
            ("text.prompt_name=query", "`text.prompt_name` = 'query'"),
            ("input.csv_delimiter=;;", "`input.csv_delimiter`"),
        ],
    )
    def test_a_wrong_value_is_named_by_its_key(self, cli: Cli, setting: str, told: str) -> None:
        line = cli.refused(2, *cli.words("--set", setting))
        assert line.startswith("ConfigError: ")
        assert told in line

    @pytest.mark.parametrize("text", ["[columns", "\x00", "a = 1\na = 2"])
    def test_a_file_that_is_no_toml_is_named(self, cli: Cli, text: str) -> None:
        (cli.folder / "job.toml").write_text(text)
        assert f"{cli.folder / 'job.toml'}: not valid TOML" in cli.refused(2, "run", cli.folder / "job.toml")

    def test_a_config_that_is_not_there_is_named_with_one_to_copy(self, cli: Cli) -> None:
        line = cli.refused(2, "run", cli.folder / "absent.toml")
        assert "no such config file; copy configs/default.toml" in line

    def test_a_config_that_is_a_folder_is_named(self, cli: Cli) -> None:
        assert f"{cli.folder}: cannot be read" in cli.refused(2, "run", cli.folder)


class TestInput:
    def test_a_missing_text_column_is_named_with_those_that_are_there(self, cli: Cli) -> None:
        pq.write_table(pa.table({"id": [1], "body": ["stone"]}), cli.folder / "a.parquet")
        line = cli.refused_input(3, cli.folder / "a.parquet")
        assert line == (
            f"InputError: {cli.folder / 'a.parquet'}: there is no column 'text'; the columns are 'id', 'body';"
            " set columns.text to one of them"
        )

    @pytest.mark.parametrize("setting", ["columns.id=idd", 'columns.carry=["title"]'])
    @pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
    def test_a_missing_id_or_carried_column_is_named(self, cli: Cli, name: str, setting: str) -> None:
        source = cli.folder / name
        if name == "a.parquet":
            pq.write_table(pa.table({"id": [1], "text": ["stone"]}), source)
        else:
            source.write_text('{"id": 1, "text": "stone"}\n' if name == "a.jsonl" else "id,text\n1,stone\n")
        line = cli.refused_input(3, source, "--set", setting)
        assert f"{source}: there is no column" in line
        assert setting.partition("=")[0] in line

    @pytest.mark.parametrize("pattern", ["absent.jsonl", "*.parquet", "nothing/**/*.csv", "empty"])
    def test_a_path_that_matches_nothing_is_named(self, cli: Cli, pattern: str) -> None:
        (cli.folder / "empty").mkdir()
        line = cli.refused_input(3, cli.folder / pattern)
        assert line.startswith(f"InputError: {cli.folder / pattern}: ")

    def test_no_path_at_all_is_told(self, cli: Cli) -> None:
        line = cli.refused(3, "run", "--model", tiny_bundle(cli.model), "--output", cli.output)
        assert line == "InputError: no input is named; set `input.paths` in the config, or give --input"

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"hello", b"PAR1" + bytes(100) + b"PAR1"])
    def test_a_file_that_is_no_parquet_is_named(self, cli: Cli, data: bytes) -> None:
        (cli.folder / "a.parquet").write_bytes(data)
        line = cli.refused_input(3, cli.folder / "a.parquet")
        assert line.startswith(f"InputError: {cli.folder / 'a.parquet'}: ")
        assert line.endswith("replace the file or leave it out")

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
    def test_a_truncated_parquet_file_is_named(self, cli: Cli, share: float) -> None:
        source = cli.folder / "a.parquet"
        pq.write_table(pa.Table.from_pylist(make_rows(1000)), source)
        source.write_bytes(source.read_bytes()[: int(share * source.stat().st_size)])
        assert f"{source}: truncated or damaged (parquet)" in cli.refused_input(3, source)

    def test_a_page_damaged_in_the_middle_keeps_the_shards_before_it(self, cli: Cli) -> None:
        source = cli.folder / "a.parquet"
        pq.write_table(pa.Table.from_pylist(make_rows(40)), source, row_group_size=10, write_page_checksum=True)
        column = pq.ParquetFile(source).metadata.row_group(3).column(1)
        data = bytearray(source.read_bytes())
        first = column.dictionary_page_offset or column.data_page_offset
        data[first + column.total_compressed_size - 1] ^= 0xFF
        source.write_bytes(data)
        line = cli.refused_input(3, source)
        assert f"{source}: truncated or damaged (parquet)" in line
        assert len(list(read_entries(cli.output))) >= 4
        assert verify(cli.output).problems == []

    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.jsonl.zst"])
    def test_a_truncated_compressed_file_is_named(self, cli: Cli, name: str) -> None:
        source = cli.folder / name
        plain = "id,text\n" + "".join(f"{n},stone {n}\n" for n in range(5000))
        if name.endswith("gz"):
            source.write_bytes(gzip.compress(plain.encode()))
        else:
            with pa.CompressedOutputStream(str(source), "zstd") as packed:
                packed.write(plain.encode())
        source.write_bytes(source.read_bytes()[:-100])
        line = cli.refused_input(3, source)
        assert line.startswith(f"InputError: {source}: truncated or damaged (")

    @pytest.mark.parametrize(
        ("data", "told"),
        [(gzip.compress(b"{}"), "gzip"), ("ü".encode("utf-16"), "UTF-16"), (b"\x28\xb5\x2f\xfd123", "zstd")],
    )
    def test_a_file_of_another_kind_than_its_name_says_is_named(self, cli: Cli, data: bytes, told: str) -> None:
        (cli.folder / "a.jsonl").write_bytes(data)
        line = cli.refused_input(3, cli.folder / "a.jsonl")
        assert f"{cli.folder / 'a.jsonl'}: holds {told}" in line

    def test_a_parquet_column_of_numbers_is_no_text(self, cli: Cli) -> None:
        pq.write_table(pa.table({"id": [1], "text": [5]}), cli.folder / "a.parquet")
        line = cli.refused_input(3, cli.folder / "a.parquet")
        assert "a.parquet: the column 'text' is int64; expected strings" in line

    def test_an_address_of_another_machine_is_not_read(self, cli: Cli) -> None:
        line = cli.refused(3, *cli.words("--set", 'input.paths=["s3://bucket/a.parquet"]'))
        assert "only local files are read" in line

    @pytest.mark.parametrize("name", ["a.docx", "a", "a.parquet.gz"])
    def test_a_file_of_unknown_ending_is_named_with_the_known_ones(self, cli: Cli, name: str) -> None:
        (cli.folder / name).touch()
        assert "known endings are .parquet" in cli.refused_input(3, cli.folder / name)


HALF = b'{"id": 9, "text": "sto'
BAD_LINES = {
    "half a line": (HALF, "the line looks cut off"),
    "half a line in the middle": (HALF + b'\n{"id": 10, "text": "river"}\n', "not valid JSON"),
    "invalid UTF-8": (b'{"id": 9, "text": "\xff"}\n', "not valid UTF-8 (byte 20 of the line)"),
    "a lone surrogate": (b'{"id": 9, "text": "\\ud800"}\n', "surrogate"),
    "a number": (b'{"id": 9, "text": 5}\n', '"text" is a number; expected a string'),
    "an object": (b'{"id": 9, "text": {}}\n', '"text" is an object; expected a string'),
    "a null": (b'{"id": 9, "text": null}\n', '"text" is null'),
    "an empty text": (b'{"id": 9, "text": ""}\n', '"text" is empty'),
    "no object": (b"[1]\n", "the line is a list; expected a JSON object"),
    "an id of the wrong type": (b'{"id": 1.5, "text": "stone"}\n', '"id" is a number; expected a string or an integer'),
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
        assert line.startswith(f"InputError: {cli.source}, line 11: ")
        assert BAD_LINES[kind][1] in line

    def test_bad_rows_that_are_allowed_are_told_and_are_no_error(
        self, cli: Cli, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_jsonl(cli.source, [*make_rows(10), {"id": "bad", "text": None}])
        assert embedmill(*cli.words("--max-quarantined", "1")) == 0
        assert "1 rows quarantined, with reasons, in quarantine/" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (b"9\n", "the row has 1 fields; the header has 2"),
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


class TestOutput:
    def test_a_folder_of_someone_else_is_refused_and_untouched(self, cli: Cli) -> None:
        cli.output.mkdir()
        (cli.output / "thesis.doc").write_text("mine")
        line = cli.refused(6, *cli.words())
        assert line.startswith(f"OutputError: {cli.output} is not an embedmill output (it holds 'thesis.doc'); ")
        assert "--output" in line
        assert [path.name for path in cli.output.iterdir()] == ["thesis.doc"]

    def test_a_file_is_refused(self, cli: Cli) -> None:
        cli.output.touch()
        assert "is a file; --output must name a folder" in cli.refused(6, *cli.words())

    def test_a_name_that_no_folder_can_have_is_refused(self, cli: Cli) -> None:
        line = cli.refused(6, "run", "--input", cli.source, "--output", "x" * 300)
        assert line.startswith("OutputError: xxx")

    def test_the_output_of_another_job_is_refused(self, cli: Cli) -> None:
        assert embedmill(*cli.words("--json")) == 0
        cli._capsys.readouterr()
        before = parts_of(cli.output)
        line = cli.refused(6, *cli.words("--set", "shard.rows=3"))
        assert line.startswith(f"FingerprintMismatch: {cli.output} holds the output of another job: `shard.rows`")
        assert parts_of(cli.output) == before

    def test_a_committed_part_that_is_gone_is_named(self, cli: Cli) -> None:
        assert embedmill(*cli.words()) == 0
        cli._capsys.readouterr()
        (cli.output / "part-00001.parquet").unlink()
        line = cli.refused(6, *cli.words())
        assert line.startswith(f"Corrupt: {cli.output / 'part-00001.parquet'} is committed but missing")

    def test_the_remedy_for_a_part_that_is_gone_brings_it_back(self, cli: Cli) -> None:
        assert embedmill(*cli.words()) == 0
        before = parts_of(cli.output)
        for name in ("part-00001.parquet", "_ledger/00001.json", "_manifest.json"):
            (cli.output / name).unlink()
        assert embedmill(*cli.words()) == 0
        assert parts_of(cli.output) == before

    @pytest.mark.parametrize("name", ["_ledger/job.json", "_ledger/00000.json", "_manifest.json"])
    def test_an_unreadable_ledger_is_named(self, cli: Cli, name: str) -> None:
        assert embedmill(*cli.words()) == 0
        cli._capsys.readouterr()
        (cli.output / name).write_text("{")
        assert cli.refused(6, *cli.words()).startswith(f"Corrupt: {cli.output / name} cannot be read")

    @pytest.mark.parametrize("call", [1, 6, 11, 16])
    def test_a_disk_that_is_full_is_told_and_the_run_goes_on_when_it_is_not(
        self, cli: Cli, monkeypatch: pytest.MonkeyPatch, call: int
    ) -> None:
        calls: list[int] = []
        fsync = os.fsync

        def full(descriptor: int) -> None:
            calls.append(descriptor)
            if len(calls) >= call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        line = cli.refused(6, *cli.words())
        assert line.startswith("OutputError: no space left to write ")
        assert line.endswith("everything committed is kept: free some and run again")
        monkeypatch.undo()
        committed = {entry.file: entry.sha256 for entry in read_entries(cli.output)}
        assert embedmill(*cli.words()) == 0
        assert committed.items() <= parts_of(cli.output).items()
        assert verify(cli.output).problems == []


class TestModel:
    @pytest.fixture(autouse=True)
    def home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("EMBEDMILL_HOME", str(tmp_path / "home"))
        return tmp_path / "home"

    def with_model(self, cli: Cli, model: Path | str) -> list[str | Path]:
        return ["run", "--model", str(model), "--input", cli.source, "--output", cli.output, "--quiet"]

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            ("tokenizer.json", "has no tokenizer.json; save the fast tokenizer there"),
            ("model.safetensors", "has neither model.safetensors nor model.onnx"),
            ("modules.json", "has no modules.json, so its pooling is unknown"),
            ("1_Pooling/config.json", "is missing; the model folder is incomplete"),
        ],
    )
    def test_a_model_folder_that_lacks_a_file_is_named_with_it(self, cli: Cli, name: str, told: str) -> None:
        model = write_tiny_model(cli.folder / "model")
        (model / name).unlink()
        line = cli.refused(4, *self.with_model(cli, model))
        assert line.startswith(f"ModelError: {model}")
        assert told in line

    @pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "modules.json", "config.json"])
    @pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00"])
    def test_a_model_folder_with_a_damaged_file_is_a_model_error(self, cli: Cli, name: str, data: bytes) -> None:
        model = write_tiny_model(cli.folder / "model")
        (model / name).write_bytes(data)
        assert "model" in cli.refused(4, *self.with_model(cli, model))

    @pytest.mark.parametrize("change", [{"hidden_size": 40}, {"num_hidden_layers": 3}, {"num_attention_heads": 5}])
    def test_a_model_config_that_does_not_fit_its_weights_is_a_model_error(
        self, cli: Cli, change: dict[str, int]
    ) -> None:
        model = write_tiny_model(cli.folder / "model")
        write_json(model / "config.json", bert_config() | change)
        assert cli.refused(4, *self.with_model(cli, model)).startswith(f"ModelError: {model}")

    def test_a_model_that_is_not_there_is_named_with_how_to_add_it(self, cli: Cli) -> None:
        line = cli.refused(4, *self.with_model(cli, "no-such-model"))
        assert "there is no model 'no-such-model'" in line
        assert "`embedmill model add" in line

    def test_a_name_that_no_folder_can_have_is_no_model(self, cli: Cli) -> None:
        line = cli.refused(4, *self.with_model(cli, "x" * 300))
        assert line.startswith("ModelError: ")

    def test_a_damaged_bundle_is_named(self, cli: Cli) -> None:
        bundle = shutil.copytree(tiny_bundle(cli.model), cli.folder / "bundle")
        with (bundle / "weights.bin").open("r+b") as weights:
            weights.write(b"x")
        line = cli.refused(4, *self.with_model(cli, bundle))
        assert f"{bundle / 'weights.bin'} is missing or damaged" in line

    def test_an_unknown_provider_is_told_with_the_known_ones(self, cli: Cli) -> None:
        line = cli.refused(5, *cli.words("--provider", "abacus"))
        assert "there is no provider 'abacus'" in line
        assert "auto, cpu" in line


class TestJson:
    def test_a_result_is_one_object_on_standard_output(self, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill(*cli.words("--json")) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["totals"]["rows_written"] == 10
        assert result["output"] == str(cli.output)

    def test_an_error_is_one_object_on_standard_error(self, cli: Cli) -> None:
        line = cli.refused(3, *cli.words("--json", source=cli.folder / "absent.jsonl"))
        error = json.loads(line)
        assert sorted(error) == ["error", "exit_code", "message"]
        assert (error["error"], error["exit_code"]) == ("InputError", 3)
        assert "absent.jsonl" in error["message"]

    def test_a_wrong_option_is_an_object_too(self, cli: Cli) -> None:
        error = json.loads(cli.refused(2, "run", "--json", "--no-such-option"))
        assert error["exit_code"] == 2
        assert "--no-such-option" in error["message"]


class TestProcess:
    """A few of the above with nothing between the test and the program."""

    def test_a_refused_command_ends_with_one_line_and_its_code(self, cli: Cli) -> None:
        code, output, errors = finish(start(cli.words(source=cli.folder / "absent.jsonl")))
        assert (code, output) == (3, "")
        assert errors.startswith(f"InputError: {cli.folder / 'absent.jsonl'}: no such file or folder")
        assert errors.count("\n") == 1

    def test_too_many_bad_rows_end_with_one_line_and_everything_written(self, cli: Cli) -> None:
        write_jsonl(cli.source, [*make_rows(10), {"id": "bad", "text": 5}])
        code, output, errors = finish(start(cli.words()))
        assert (code, output) == (7, "")
        assert errors.count("\n") == 1
        assert verify(cli.output).complete

    @pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
    def test_a_reader_that_went_away_is_no_traceback(self, cli: Cli) -> None:
        command = [sys.executable, "-m", "pipeline", *map(str, cli.words())]
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        os.close(writing)
        assert "Traceback" not in done.stderr
        assert verify(cli.output).complete


def test_a_runtime_that_fails_says_nothing_beside_the_one_line(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime logs to the descriptor itself; token numbers that the model lacks make it fail."""

    def no_tokens(tokens: Tokens, batch: Batch, pad_id: int) -> tuple[Any, Any]:
        ids, mask = pad(tokens, batch, pad_id)
        return ids + 1_000_000, mask

    monkeypatch.setattr("pipeline.engine.session.pad", no_tokens)
    source = write_jsonl(tmp_path / "a.jsonl", make_rows(3))
    assert embedmill(*words_of(make_config(tiny_model, source, tmp_path / "out")), "--quiet") == 5
    told = capfd.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    assert line.startswith("DeviceError: cpu failed on a batch of 3 x ")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root can mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("free_kib", [8, 300])
def test_a_disk_that_is_really_full_is_told_and_the_run_goes_on_when_it_is_not(
    cli: Cli, small_disk: Path, free_kib: int
) -> None:
    cli.source = write_jsonl(cli.folder / "many.jsonl", make_rows(300))
    run(make_config(cli.model, cli.source, cli.folder / "undisturbed", shard={"rows": 5}), quiet=True)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes((1024 - free_kib) * 1024))
    cli.output = small_disk / "out"
    line = cli.refused(6, *cli.words())
    assert line.startswith("OutputError: ")
    committed = {entry.file: entry.sha256 for entry in read_entries(cli.output)}
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert embedmill(*cli.words()) == 0
    assert committed.items() <= parts_of(cli.output).items()
    assert parts_of(cli.output) == parts_of(cli.folder / "undisturbed")


def test_what_is_committed_stays_when_a_later_run_is_refused(cli: Cli) -> None:
    assert embedmill(*cli.words()) == 0
    before = parts_of(cli.output)
    refusals: list[Callable[[], Any]] = [
        lambda: embedmill(*cli.words("--set", "shard.rows=2")),
        lambda: embedmill(*cli.words(source=cli.folder / "absent.jsonl")),
        lambda: embedmill(*cli.words("--model", "no-such-model", "--set", 'model="no-such-model"')),
        lambda: embedmill(*cli.words("--set", "nonsense=1")),
    ]
    assert [refuse() for refuse in refusals] == [6, 3, 4, 2]
    assert parts_of(cli.output) == before
    with Ledger(cli.output) as ledger:
        assert ledger.pending() == []
