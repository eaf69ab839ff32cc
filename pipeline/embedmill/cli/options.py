"""Options that commands share, and how results are printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from embedmill.base.config import RunConfig
from embedmill.base.configfile import load_config

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of words.")


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """CONFIG and the options that change it."""
    for option in reversed(
        [
            click.argument("config", required=False, type=click.Path(path_type=Path)),
            click.option(
                "--input", "inputs", multiple=True, metavar="GLOB", help="A file, folder or glob; repeatable."
            ),
            click.option("--output", metavar="DIR", help="The output folder."),
            click.option("--model", metavar="NAME|DIR", help="A kept model's name, or a folder."),
            click.option("--provider", metavar="NAME", help="An execution provider, or auto."),
            click.option("--device", metavar="NAME", help="One of the provider's devices: number, LUID, name or kind."),
            click.option(
                "--precision", type=click.Choice(["auto", "fp32", "fp16"]), help="What the device computes in."
            ),
            click.option("--max-quarantined", type=click.IntRange(min=0), help="Rows that may be quarantined."),
            click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any key of the config."),
        ]
    ):
        command = option(command)
    return command


def job_config(
    config: Path | None,
    inputs: Sequence[str],
    output: str | None,
    model: str | None,
    provider: str | None,
    device: str | None,
    precision: str | None,
    max_quarantined: int | None,
    overrides: Sequence[str],
) -> RunConfig:
    """The job: a config file, then the short options, then --set."""
    short: dict[str, Any] = {
        "input.paths": list(inputs) or None,
        "output.path": output,
        "model": model,
        "engine.provider": provider,
        "engine.device": device,
        "engine.precision": precision,
        "rows.max_quarantined": max_quarantined,
    }
    given = [f"{key}={json.dumps(value)}" for key, value in short.items() if value is not None]
    return load_config(config, [*given, *overrides])


def print_result(value: Any, summary: Callable[[Any], str], as_json: bool) -> None:
    """Print a result: in the words of `summary`, or as one JSON object."""
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(value, enc_hook=str)))
    else:
        click.echo(summary(value))
