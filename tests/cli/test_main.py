"""The command line: help, documentation, output and exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import pyarrow.parquet
import pytest

from embedmill.base import errors
from embedmill.base.errors import PipelineError
from embedmill.cli.main import cli
from tests.support.jobs import embedmill, make_config, make_rows, tiny_bundle, words_of, write_jsonl

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def commands(group: click.Group = cli, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield commands and groups by path, as ("model", "add")."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


COMMANDS = dict(commands())
LEAVES = {words: command for words, command in COMMANDS.items() if not isinstance(command, click.Group)}
OPTIONS = sorted(
    {
        name
        for command in LEAVES.values()
        for option in command.params
        if isinstance(option, click.Option)
        for name in [*option.opts, *option.secondary_opts]
    }
)


def exit_codes(kind: type[PipelineError] = PipelineError) -> Iterator[int]:
    for below in kind.__subclasses__():
        yield below.exit_code
        yield from exit_codes(below)


class TestReadme:
    @pytest.mark.parametrize("words", LEAVES, ids=" ".join)
    def test_every_command_is_documented(self, words: tuple[str, ...]) -> None:
        assert f"embedmill {' '.join(words)}" in README

    @pytest.mark.parametrize("option", OPTIONS)
    def test_every_option_is_documented(self, option: str) -> None:
        assert re.search(rf"{option}\b", README)

    @pytest.mark.parametrize("command", sorted(set(re.findall(r"`embedmill ((?:model )?[a-z]+)", README))))
    def test_every_documented_command_is_there(self, command: str) -> None:
        assert tuple(command.split()) in COMMANDS

    @pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z-]+)", README)) - {"--help", "--version"}))
    def test_every_documented_option_is_there(self, option: str) -> None:
        assert option in OPTIONS

    @pytest.mark.parametrize("code", sorted({0, 130, 143, *exit_codes()} - {1}))
    def test_every_exit_code_is_documented(self, code: int) -> None:
        table = README.partition("## Exit codes")[2].partition("\n## ")[0]
        assert re.search(rf"^\| [^|]*\b{code}\b", table, re.MULTILINE)


class TestErrors:
    def test_the_drawn_tree_has_every_error_with_its_exit_code(self) -> None:
        drawn = errors.__doc__ or ""
        for name, kind in vars(errors).items():
            if isinstance(kind, type) and issubclass(kind, PipelineError) and kind is not PipelineError:
                [line] = re.findall(rf"── {name}\b.*", drawn)
                own = "exit_code" in vars(kind) or kind is errors.ConservationError
                assert not own or str(kind.exit_code) in line


class TestHelp:
    @pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
    @pytest.mark.parametrize("flag", ["--help", "-h"])
    def test_help_tells_what_a_command_does(
        self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], flag: str
    ) -> None:
        assert embedmill(*words, flag) == 0
        told = capsys.readouterr()
        assert told.err == ""
        assert told.out.startswith(f"Usage: {' '.join(['embedmill', *words])} ")

    @pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
    def test_every_command_and_option_has_a_sentence(self, words: tuple[str, ...]) -> None:
        command = COMMANDS[words]
        assert command.help
        assert [option.name for option in command.params if isinstance(option, click.Option) and not option.help] == []

    @pytest.mark.parametrize("words", LEAVES, ids=" ".join)
    def test_every_command_takes_json(self, words: tuple[str, ...]) -> None:
        assert "as_json" in [option.name for option in LEAVES[words].params]

    def test_the_version_is_that_of_the_distribution(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill("--version") == 0
        assert capsys.readouterr().out == f"embedmill, version {metadata.version('embedmill')}\n"

    @pytest.mark.parametrize(
        "words",
        [
            ("fly",),
            ("run", "--fly"),
            ("run", "a.toml", "b.toml"),
            ("verify",),
            ("run", "--max-quarantined", "-1"),
            ("run", "--set"),
        ],
        ids=" ".join,
    )
    def test_wrong_usage_ends_with_2_and_says_what(
        self, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
    ) -> None:
        assert embedmill(*words) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert "Error: " in told.err

    def test_without_a_command_help_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill() == 2
        assert "Commands:" in capsys.readouterr().err

    def test_heavy_libraries_are_loaded_by_the_commands_that_need_them(self) -> None:
        script = "import embedmill.cli.main, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        heavy = {"numpy", "pyarrow", "onnx", "onnxruntime", "tokenizers", "tqdm", "huggingface_hub", "safetensors"}
        assert heavy & set(done.stdout.split()) == set()

    @pytest.mark.skipif(os.name == "nt", reason="a folder in use cannot be removed there")
    def test_a_working_directory_that_is_gone_is_told_as_that(self, tmp_path: Path) -> None:
        (tmp_path / "gone").mkdir()
        script = "cd gone && rmdir ../gone && exec " + shlex.join(
            [sys.executable, "-m", "embedmill", "run", "--input", "a.jsonl", "--output", "relative"]
        )
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 2, done.stderr
        assert done.stderr == (
            "ConfigError: the working directory was removed meanwhile; change to another, and run the same command"
            " again\n"
        )

    def test_the_module_is_the_command(self) -> None:
        command = [sys.executable, "-m", "embedmill", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.split()[0]) == (0, "embedmill,")


class TestJob:
    @pytest.fixture
    def words(self, tmp_path: Path, tiny_model: Path) -> list[str]:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(20))
        return words_of(make_config(tiny_model, source, tmp_path / "out", shard={"rows": 10}))

    def test_a_run_says_what_it_did_where_it_is_and_how_to_read_it(
        self, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert embedmill(*words) == 0
        told = capsys.readouterr()
        assert told.out.startswith("embedded 20 rows in ")
        assert f"vectors: {tmp_path / 'out' / '*.parquet'} (20 vectors, 2 files, " in told.out
        assert f"duckdb -c \"SELECT * FROM '{(tmp_path / 'out').as_posix()}/*.parquet' LIMIT 5\"" in told.out
        assert told.err.startswith("embedding 20 rows with tiny, cpu fp32")

    def test_quiet_leaves_only_the_result(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill(*words, "--quiet") == 0
        assert capsys.readouterr().err == ""

    def test_options_before_set_before_the_file(self, tmp_path: Path, words: list[str], tiny_model: Path) -> None:
        """The short options change the file, and --set changes both."""
        config = tmp_path / "job.toml"
        config.write_text(f"model = '{tiny_bundle(tiny_model)}'\n[shard]\nrows = 3\n[output]\npath = 'nowhere'\n")
        source, output = tmp_path / "a.jsonl", tmp_path / "out"
        line: list[str | Path] = [
            "run",
            config,
            "--input",
            source,
            "--output",
            "also nowhere",
            "--set",
            f"output.path={output}",
        ]
        assert embedmill(*line, "--quiet") == 0
        assert len(list(output.glob("*.parquet"))) == 7

    def test_an_input_may_be_given_several_times(self, tmp_path: Path, words: list[str], tiny_model: Path) -> None:
        other = write_jsonl(tmp_path / "b.jsonl", make_rows(5, seed=1))
        line: list[str | Path] = ["run", "--model", tiny_bundle(tiny_model), "--output", tmp_path / "out", "--quiet"]
        line += ["--input", tmp_path / "a.jsonl", "--input", other, "--set", "rows.duplicate_id=keep"]
        assert embedmill(*line) == 0
        job = json.loads((tmp_path / "out" / "_ledger" / "job.json").read_text())
        assert list(job["fingerprint"]["input.files"]) == ["a.jsonl", "b.jsonl"]

    def test_a_plan_writes_nothing(self, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill("plan", *words[1:]) == 0
        told = capsys.readouterr().out
        assert told.startswith("input: 20 rows in 1 file (")
        assert "cut into 2 shards" in told
        assert not (tmp_path / "out").exists()

    def test_a_plan_is_one_json_object(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill("plan", *words[1:], "--json") == 0
        assert json.loads(capsys.readouterr().out)["rows"] == 20

    def test_a_sound_output_is_told_as_such(
        self, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        embedmill(*words)
        capsys.readouterr()
        assert embedmill("verify", tmp_path / "out") == 0
        told = capsys.readouterr()
        assert told.out.startswith("2 of 2 shards committed (complete)\n")
        assert told.err == ""

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (MemoryError("malloc of size 16448 failed"), r"has no memory left; .* \(malloc of size 16448 failed\)"),
            (MemoryError(), "has no memory left; .* the same command again"),
            (
                RuntimeError("can't start new thread"),
                "can start no more threads; .*`ulimit -u`.* the same command again",
            ),
        ],
        ids=repr,
    )
    def test_a_process_without_memory_left_ends_with_exit_code_5(
        self,
        words: list[str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        error: Exception,
        said: str,
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr(pyarrow.parquet, "write_table", fail)
        assert embedmill(*words) == 5
        told = capsys.readouterr().err.splitlines()[-1]
        assert re.fullmatch(f"OutOfMemory: this process {said}", told)

    def test_damage_is_told_with_exit_code_6(
        self, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        embedmill(*words)
        capsys.readouterr()
        (tmp_path / "out" / "part-00001.parquet").write_bytes(b"no")
        assert embedmill("verify", tmp_path / "out") == 6
        told = capsys.readouterr()
        assert "problem: part-00001.parquet: has 2 bytes, not those in the ledger" in told.out
        assert told.err.startswith(f"Corrupt: {tmp_path / 'out'}: ")
        assert told.err.count("\n") == 1

    def test_damage_is_told_in_json_too(
        self, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        embedmill(*words)
        capsys.readouterr()
        (tmp_path / "out" / "part-00001.parquet").write_bytes(b"no")
        assert embedmill("verify", tmp_path / "out", "--json") == 6
        told = capsys.readouterr()
        assert len(json.loads(told.out)["problems"]) >= 1
        assert json.loads(told.err)["error"] == "Corrupt"

    def test_what_is_no_output_cannot_be_verified(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill("verify", tmp_path) == 6
        assert "is not an embedmill output" in capsys.readouterr().err


class TestReport:
    def test_a_report_is_written_again(
        self, tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = write_jsonl(tmp_path / "a.jsonl", make_rows(5))
        embedmill(*words_of(make_config(tiny_model, source, tmp_path / "out")))
        (tmp_path / "out" / "_report.html").unlink()
        capsys.readouterr()
        assert embedmill("report", tmp_path / "out") == 0
        assert capsys.readouterr().out == f"report: {tmp_path / 'out' / '_report.html'}\n"
        assert (tmp_path / "out" / "_report.html").read_text().startswith("<!doctype html>")

    def test_a_report_needs_a_finished_output(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert embedmill("report", tmp_path) == 6
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_libraries_load_ends_the_command_like_a_later_one(signum: signal.Signals) -> None:
    script = f"""
import signal, sys
from embedmill.cli.entry import entry_point

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "click":
            signal.raise_signal({int(signum)})

sys.meta_path.insert(0, Interrupting())
sys.argv = ["embedmill", "plan"]
entry_point()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 128 + signum
    assert done.stderr.startswith(f"Stopped: stopped by {signum.name}")
