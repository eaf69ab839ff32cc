"""Commands of `embedmill model`."""

from __future__ import annotations

from typing import Any

import click

from embedmill.base.config import DEFAULT_MODEL
from embedmill.cli.options import as_json, print_result


@click.group("model")
def model_group() -> None:
    """Manage the models on this machine."""


@model_group.command("add")
@click.argument("place", metavar="PATH|ORG/NAME[@REVISION]", default=DEFAULT_MODEL)
@click.option("--name", help="Name of the model; default: the folder's or the hub's name.")
@click.option("--pooling", help="mean, cls, last or max, if the folder has no modules.json.")
@click.option("--normalize/--no-normalize", default=None, help="The same, for unit length.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=1, max=1e9), help="Seconds that building may take (900)."
)
@click.option("--dim", type=click.IntRange(min=1), help="Keep only the first dimensions (Matryoshka models).")
@as_json
def model_add(place: str, as_json: bool, **options: Any) -> None:
    """Add a model from a folder, wheel or the hub."""
    from embedmill.jobs.models import add_model
    from embedmill.report.models import model_summary

    print_result(add_model(place, **options), model_summary, as_json, kept=True)


@model_group.command("list")
@as_json
def model_list(as_json: bool) -> None:
    """List the models."""
    from embedmill.jobs.models import list_bundles, models_folder
    from embedmill.report.models import models_summary

    bundles = list_bundles()
    print_result(bundles, lambda found: models_summary(found, models_folder()), as_json)


@model_group.command("show")
@click.argument("name", default=DEFAULT_MODEL)
@as_json
def model_show(name: str, as_json: bool) -> None:
    """Show a model's pooling, length, prompts and files."""
    from embedmill.jobs.models import find_bundle
    from embedmill.report.models import model_summary

    print_result(find_bundle(name), model_summary, as_json)
