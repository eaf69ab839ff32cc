"""Options of a job: file, short options, --set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from embedmill.base.config import RunConfig
from embedmill.cli.options import job_config, job_options


def config_of(*arguments: str | Path) -> RunConfig:
    """Return the config of a command with arguments."""
    found: list[RunConfig] = []

    @click.command()
    @job_options
    def command(**options: Any) -> None:
        found.append(job_config(**options))

    command.main([str(argument) for argument in arguments], standalone_mode=False)
    return found[0]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text("[output]\npath = 'file'\n[rows]\nmax_quarantined = 5\n", "utf-8")
    return path


def test_without_options_the_defaults_hold() -> None:
    assert config_of() == RunConfig()


def test_every_short_option_sets_its_key() -> None:
    config = config_of(
        *("--input", "a.csv", "--input", "b", "--output", "out dir", "--model", "m", "--provider", "cuda"),
        *("--device", "0", "--precision", "fp16", "--max-quarantined", "3"),
    )
    assert (config.input.paths, config.output.path, config.model) == (("a.csv", "b"), "out dir", "m")
    assert (config.engine.provider, config.engine.device, config.engine.precision) == ("cuda", "0", "fp16")
    assert config.rows.max_quarantined == 3


def test_a_short_option_overrides_the_file_and_set_overrides_both(file: Path) -> None:
    assert config_of(file).output.path == "file"
    assert config_of(file, "--output", "short").output.path == "short"
    assert config_of(file, "--set", "output.path=set", "--output", "short").output.path == "set"


def test_a_short_option_of_zero_counts(file: Path) -> None:
    assert config_of(file, "--max-quarantined", "0").rows.max_quarantined == 0
