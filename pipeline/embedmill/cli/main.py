"""The command line: commands, and errors as exit codes."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click

from embedmill.base.config import DEFAULT_MODEL
from embedmill.base.errors import ConfigError, Corrupt, OutOfMemory, PipelineError, Stopped
from embedmill.base.signals import StopSignals, checkpoint
from embedmill.base.streams import Console, hold_descriptors, one_line
from embedmill.cli.entry import stop_signals
from embedmill.cli.models import model_group
from embedmill.cli.options import as_json, job_config, job_options, print_result

# CPython raises a RuntimeError with this text when there is no memory for a thread's stack.
_NO_THREAD = "can't start new thread"
_NO_THREADS = (
    "this process can start no more threads; everything committed is kept: raise the limit of processes (`ulimit -u`,"
    " the pids limit of a container), or leave it more memory, and run the same command again"
)
_NOWHERE = "the working directory was removed meanwhile; change to another, and run the same command again"
_NO_MEMORY = (
    "this process has no memory left; everything committed is kept: close other programs, or lower"
    " engine.budget_tokens, engine.streams or shard.rows, and run the same command again"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="embedmill", prog_name="embedmill")
def cli() -> None:
    """Embed a corpus (Parquet, JSONL, CSV) into committed Parquet shards."""


@cli.command("run")
@job_options
@click.option("--quiet", is_flag=True, help="Print the result only, no progress.")
@as_json
def run_command(as_json: bool, quiet: bool, **options: Any) -> None:
    """Embed a corpus, or resume an interrupted run."""
    config = job_config(**options)
    from embedmill.jobs.run import run
    from embedmill.report.run import run_summary

    print_result(run(config, quiet=quiet), run_summary, as_json, kept=True)


@cli.command("plan")
@job_options
@as_json
def plan_command(as_json: bool, **options: Any) -> None:
    """Estimate a run: rows, tokens, truncation, time, memory.

    Nothing is written.
    """
    config = job_config(**options)
    from embedmill.jobs.plan import plan_run
    from embedmill.report.plan import plan_summary

    print_result(plan_run(config), plan_summary, as_json)


@cli.command("tune")
@job_options
@click.option(
    "--time",
    "time_s",
    type=click.FloatRange(min=1),
    help="Seconds to spend on trials; by default 27, or 90 where shapes are fixed.",
)
@click.option("--show", is_flag=True, help="Print the cached tunings; measure nothing.")
@click.option("--chart", type=click.Path(path_type=Path), metavar="FILE", help="Write the plots as an HTML page.")
@as_json
def tune_command(time_s: float | None, show: bool, chart: Path | None, as_json: bool, **options: Any) -> None:
    """Tune batches for this device, model and corpus.

    The result is cached and used by later runs.
    """
    config = job_config(**options)
    from embedmill.jobs.tune import tune
    from embedmill.report.tuning import tuning_summary, tunings_summary
    from embedmill.tune.kept import kept_tunings

    if show:
        print_result(kept_tunings(), tunings_summary, as_json)
    else:
        print_result(tune(config, time_s=time_s, chart=chart), tuning_summary, as_json, kept=True)


@cli.command("doctor")
@click.option("--model", metavar="NAME|DIR", default=DEFAULT_MODEL, help="The model to try providers with.")
@click.option("--allow-provider-download", is_flag=True, help="Let Windows 11 fetch providers of its catalogue.")
@as_json
def doctor_command(model: str, allow_provider_download: bool, as_json: bool) -> None:
    """Try every provider on this machine.

    Print the speed of each one that works, and what to install for the others.
    """
    from embedmill.jobs.doctor import examine
    from embedmill.report.doctor import doctor_summary

    found = examine(model, allow_provider_download=allow_provider_download)
    print_result(found, doctor_summary, as_json)


@cli.command("bench")
@job_options
@click.option("--texts", type=click.IntRange(min=1), default=512, show_default=True, help="Number of documents.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds by turns.")
@click.option("--chart", type=click.Path(path_type=Path), metavar="FILE.svg", help="Write a chart as SVG.")
@click.option("--emulated", is_flag=True, help="Include emulated devices, with two short documents.")
@as_json
def bench_command(as_json: bool, texts: int, rounds: int, chart: Path | None, emulated: bool, **options: Any) -> None:
    """Compare working providers with the CPU on the same documents."""
    config = job_config(**options)
    from embedmill.jobs.bench import bench
    from embedmill.report.bench import bench_summary

    found = bench(config, texts=texts, rounds=rounds, chart=chart, emulated=emulated)
    print_result(found, bench_summary, as_json)


@cli.command("verify")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@as_json
def verify_command(folder: Path, as_json: bool) -> None:
    """Verify checksums, counts, identity and vectors of an output.

    The output may be unfinished.
    """
    from embedmill.report.verify import verify_summary
    from embedmill.sink.verify import verify

    found = verify(folder)
    print_result(found, verify_summary, as_json, kept=bool(found.problems))
    if found.problems:
        raise Corrupt(f"{folder}: {len(found.problems)} problem(s), the first: {found.problems[0]}")


@cli.command("report")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@as_json
def report_command(folder: Path, as_json: bool) -> None:
    """Rewrite the HTML report of a finished output."""
    from embedmill.jobs.report import report

    print_result({"report": str(report(folder))}, lambda found: f"report: {found['report']}", as_json, kept=True)


cli.add_command(model_group)


def main(arguments: Sequence[str] | None = None, stop: StopSignals | None = None) -> int:
    """Run a command and print errors; return the exit code.

    `stop` are handlers that are installed already.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    hold_descriptors()
    with redirect_stdout(Console(sys.stdout, needed=True)), redirect_stderr(Console(sys.stderr)):
        return _exit_code_of(given, stop or stop_signals())


class _OneLine(logging.Formatter):
    """Formatter of one line per record, tracebacks aside."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return one_line(super().formatMessage(record))


def _exit_code_of(given: list[str], stop: StopSignals) -> int:
    logging.basicConfig(level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_OneLine("%(message)s"))
    logging.getLogger("embedmill").setLevel(logging.INFO)
    try:
        cli.main(given, prog_name="embedmill", standalone_mode=False)
        checkpoint()
        stop.settled = True
        return 0
    except BaseException as error:
        stop.settled = True
        # A noted signal explains any error after it: a child that the terminal interrupts too ends with one of its own.
        return _exit_code(stop.noted or error, as_json="--json" in given)


def _exit_code(error: BaseException, *, as_json: bool) -> int:
    """Print an error, return the exit code; re-raise defects."""
    # One sentence on standard error, or a JSON object with --json.
    match error:
        case PipelineError() | Stopped():
            return _print_error(type(error).__name__, str(error), error.exit_code, as_json=as_json)
        case click.ClickException():
            return _print_error("UsageError", _usage(error), error.exit_code, as_json=as_json)
        case MemoryError():
            why = f" ({error})" if str(error) else ""
            return _print_error("OutOfMemory", f"{_NO_MEMORY}{why}", OutOfMemory.exit_code, as_json=as_json)
        case _ if str(error) == _NO_THREAD:
            return _print_error("OutOfMemory", _NO_THREADS, OutOfMemory.exit_code, as_json=as_json)
        case FileNotFoundError() if _is_nowhere():
            return _print_error("ConfigError", _NOWHERE, ConfigError.exit_code, as_json=as_json)
        case click.Abort():
            return 1
        case _:
            raise error


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _usage(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "embedmill"
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"


def _print_error(kind: str, message: str, exit_code: int, *, as_json: bool) -> int:
    error = {"error": kind, "message": message, "exit_code": exit_code}
    click.echo(json.dumps(error) if as_json else one_line(f"{kind}: {message}"), err=True)
    return exit_code
