"""Options with bytes that are no UTF-8, which Python decodes to half characters."""

from __future__ import annotations

import pytest

from tests.hostile.command import Cli

BAD = "x\udcff"
OPTIONS = [
    ("--set", f"text.prompt={BAD}"),
    ("--set", f"text.prompt_name={BAD}"),
    ("--set", f"columns.text={BAD}"),
    ("--set", f"columns.id={BAD}"),
    ("--set", f"columns.carry=['{BAD}']"),
    ("--set", f"columns.carry_as={{ {BAD} = 'a' }}"),
    ("--set", f"input.encoding={BAD}"),
    ("--provider", BAD),
    ("--device", BAD),
    ("--precision", BAD),
    ("--set", f"{BAD}=1"),
    ("--max-quarantined", BAD),
]


@pytest.mark.parametrize("command", ["run", "plan", "tune", "bench"])
@pytest.mark.parametrize(
    "option", OPTIONS, ids=[" ".join(option).encode("ascii", "replace").decode() for option in OPTIONS]
)
def test_an_option_of_other_bytes_is_wrong_usage_and_writes_nothing(
    cli: Cli, command: str, option: tuple[str, str]
) -> None:
    words = [command, "--input", str(cli.source), "--model", str(cli.model), "--output", str(cli.output)]
    line = cli.refused(2, *words, *option)
    assert line.startswith(("ConfigError: ", "UsageError: "))
    assert not cli.output.exists()


@pytest.mark.parametrize(
    "words", [("model", "add", "HERE", "--name", BAD), ("model", "show", BAD), ("model", "add", BAD)], ids=str
)
def test_a_models_name_of_other_bytes_is_refused(cli: Cli, words: tuple[str, ...]) -> None:
    line = cli.refused(4, *(str(cli.model) if word == "HERE" else word for word in words))
    assert line.startswith("ModelError: ")
