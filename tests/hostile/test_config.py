"""Whatever is wrong with a config, one sentence names the key and what to do."""

from __future__ import annotations

import pytest

from tests.hostile.command import Cli


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

    @pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000, "{a=" * 5000])
    def test_a_value_that_is_too_deep_or_too_long_is_a_sentence(self, cli: Cli, value: str) -> None:
        (cli.folder / "job.toml").write_text(f"model = {value}")
        assert f"{cli.folder / 'job.toml'}: " in cli.refused(2, "run", cli.folder / "job.toml")

    def test_a_config_that_is_not_there_is_named_with_one_to_copy(self, cli: Cli) -> None:
        line = cli.refused(2, "run", cli.folder / "absent.toml")
        assert "no such config file; copy configs/default.toml" in line

    def test_a_config_that_is_a_folder_is_named(self, cli: Cli) -> None:
        assert f"{cli.folder}: cannot be read" in cli.refused(2, "run", cli.folder)
