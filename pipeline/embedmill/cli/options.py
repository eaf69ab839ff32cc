"""Options and output shared by the commands."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from embedmill.base import telemetry
from embedmill.base.config import RunConfig
from embedmill.base.configfile import load_config
from embedmill.base.errors import OutputError
from embedmill.base.streams import one_line

LOG = logging.getLogger("embedmill")
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")


def job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add CONFIG and the options that override config keys."""
    # A decorator that is applied last comes first in the help.
    for option in reversed(
        [
            click.argument("config", required=False, type=click.Path(path_type=Path)),
            click.option(
                "--input", "inputs", multiple=True, metavar="GLOB", help="A file, folder or glob; repeatable."
            ),
            click.option("--output", metavar="DIR", help="The output folder."),
            click.option("--model", metavar="NAME|DIR", help="Name or folder of a model."),
            click.option("--provider", metavar="NAME", help="An execution provider, or auto."),
            click.option("--device", metavar="NAME", help="A device of the provider: number, LUID, name or kind."),
            click.option(
                "--precision", type=click.Choice(["auto", "fp32", "fp16"]), help="The arithmetic of the device."
            ),
            click.option("--max-quarantined", type=click.IntRange(min=0), help="Rows that may be quarantined."),
            click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any key of the config."),
        ]
    ):
        command = option(command)
    return command


# Short options and the keys that they set.
_KEYS = {
    "inputs": "input.paths",
    "output": "output.path",
    "model": "model",
    "provider": "engine.provider",
    "device": "engine.device",
    "precision": "engine.precision",
    "max_quarantined": "rows.max_quarantined",
}


def job_config(config: Path | None, overrides: Sequence[str], **short: Any) -> RunConfig:
    """Load the job: config file, then short options, then --set.

    Call it before jobs are imported: telemetry is settled before the runtime loads.
    """
    given = {_KEYS[name]: value for name, value in short.items() if value not in (None, ())}
    loaded = load_config(config, overrides, given)
    telemetry.settle(loaded.engine.telemetry)
    return loaded


def _printable(value: Any) -> Any:
    """Escape control characters in all texts of a result."""
    match value:
        case str():
            return one_line(value)
        case Path():
            return Path(one_line(str(value)))
        case msgspec.Struct():
            return msgspec.structs.replace(value, **{f: _printable(getattr(value, f)) for f in value.__struct_fields__})
        case list() | tuple() | set():
            return type(value)(map(_printable, value))
        case dict():
            return {_printable(key): _printable(one) for key, one in value.items()}
    return value


def print_result(value: Any, summary: Callable[[Any], str], as_json: bool, *, kept: bool = False) -> None:
    """Print a result as text by `summary`, or as JSON.

    Raises OutputError where it cannot be printed, unless it is `kept` elsewhere too.
    """
    # enc_hook: paths, which msgspec does not encode.
    text = json.dumps(msgspec.to_builtins(value, enc_hook=str)) if as_json else summary(_printable(value))
    try:
        click.echo(text)
    except OutputError as error:
        if not kept:
            raise
        LOG.warning("all is done, but %s", error)
