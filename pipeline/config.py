"""What a `configs/*.toml` may say: the structs, and their checks on load."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import ConfigError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
MIB = 1 << 20

RowPolicy = Literal["quarantine", "skip", "fail"]
CarriedType = Literal["string", "int64", "float64", "bool"]
PositiveInt = Annotated[int, Meta(ge=1)]
ThreadCount = Annotated[int, Meta(ge=1, le=1024)]
NaturalInt = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(gt=0, le=1)]


def about(text: str) -> Meta:
    """A field's description, from which the config reference is generated."""
    return Meta(description=text)


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every config table."""


class InputTable(Table, frozen=True):
    """What is read."""

    paths: Annotated[
        tuple[str, ...],
        about("Files, folders (read recursively) and globs, relative to where the command runs."),
    ] = ()
    format: Annotated[
        Literal["auto", "parquet", "jsonl", "csv"],
        about("`auto` goes by the ending: .parquet, .jsonl, .ndjson, .csv, .tsv; text also with .gz or .zst."),
    ] = "auto"
    csv_delimiter: Annotated[
        str, Meta(min_length=1, max_length=1), about("One character between CSV fields; .tsv files use a tab.")
    ] = ","


class ColumnsTable(Table, frozen=True):
    """Which columns are used."""

    text: Annotated[str, about("The column that is embedded.")] = "text"
    id: Annotated[
        str | None,
        about(
            "The column that names a row (strings or integers; written as strings). Unset: column `id` where"
            " the first file has one, else `FILE:ROW`, rows counted from 1."
        ),
    ] = None
    carry: Annotated[
        tuple[str, ...],
        about("Columns copied to the output beside the vector. Parquet columns keep their type."),
    ] = ()
    types: Annotated[
        dict[str, CarriedType],
        about(
            "Types of carried JSONL and CSV columns: string, int64, float64 or bool. Default: string; a JSON"
            " value that is no string is then carried as its JSON text."
        ),
    ] = {}


class RowsTable(Table, frozen=True):
    """What happens to rows that cannot be embedded.

    `quarantine` writes the row with its reason to OUT/quarantine, `skip` only counts it, `fail` ends
    the run with exit code 3. Every row is accounted for in the ledger either way.
    """

    null_text: Annotated[RowPolicy, about("The text is null or absent.")] = "quarantine"
    empty_text: Annotated[
        Literal["quarantine", "skip", "fail", "embed"],
        about("The text is empty or only white space; `embed` embeds it all the same."),
    ] = "quarantine"
    wrong_type: Annotated[RowPolicy, about("The text, the id or a typed carried column has another type.")] = (
        "quarantine"
    )
    malformed: Annotated[RowPolicy, about("Broken JSON or CSV, invalid UTF-8, a lone surrogate.")] = "quarantine"
    too_long: Annotated[RowPolicy, about("A row or text over the limits in [limits].")] = "quarantine"
    duplicate_id: Annotated[
        Literal["quarantine", "skip", "fail", "keep"],
        about("An id that an earlier row of this job has; `keep` does not look for duplicates."),
    ] = "quarantine"
    max_quarantined: Annotated[
        NaturalInt, about("A run that quarantines more rows than this finishes with exit code 7.")
    ] = 0


class ShardTable(Table, frozen=True):
    """How the input is cut: a shard is one output file, and the unit of commit and resume."""

    rows: Annotated[PositiveInt, about("At most so many rows.")] = 2048
    text_bytes: Annotated[PositiveInt, about("At most so many bytes of input text (one row may exceed it).")] = 16 * MIB


class TextTable(Table, frozen=True):
    """What is done to a text before the model sees it."""

    prompt: Annotated[
        str | None,
        about("Put before every text. Unset: the model's own default prompt; empty: none."),
    ] = None
    prompt_name: Annotated[
        str | None, about("One of the model's named prompts (`embedmill model show`), instead of `prompt`.")
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=3)] | None,
        about("Truncate at so many tokens, special tokens included. Unset: the model's own limit."),
    ] = None
    chunk_tokens: Annotated[
        NaturalInt,
        about("Cut each text into chunks of so many tokens, one vector each; 0 embeds a text whole."),
    ] = 0
    chunk_overlap: Annotated[NaturalInt, about("Tokens that a chunk shares with the one before it.")] = 0


class EngineTable(Table, frozen=True):
    """What computes; nothing here changes the output, so all of it may differ on a resume."""

    provider: Annotated[str, about("A provider (`embedmill doctor` tries them), or `auto`: the fastest one.")] = "auto"
    device: Annotated[
        str | None,
        about(
            "Which device of the provider: its number, LUID or a part of its name in `embedmill doctor`; or"
            " discrete, integrated, gpu, npu, cpu. Unset: the most powerful."
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "fp16"],
        about("What the device computes in. `auto`: the provider's default, or what measured fastest."),
    ] = "auto"
    streams: Annotated[ThreadCount | None, about("Batches that run at once. Unset: one per usable core.")] = None
    threads: Annotated[
        ThreadCount | None, about("Threads inside each batch. Unset: the usable cores divided by the streams.")
    ] = None
    budget_tokens: Annotated[
        PositiveInt | None,
        about("Padded tokens per batch: batch times sequence stays below it. Unset: the provider's own."),
    ] = None
    memory_bytes: Annotated[
        PositiveInt | None,
        about("The most device memory a provider may take, where it knows such a limit (CUDA). Unset: no limit."),
    ] = None
    memory_fraction: Annotated[Fraction, about("The part of the free memory that batches may take.")] = 0.85


class OutputTable(Table, frozen=True):
    """What is written."""

    path: Annotated[str, about("The output folder; made if absent, resumed if it holds this same job.")] = "out"
    compression: Annotated[
        Literal["zstd", "snappy", "none"], about("Parquet compression of every column but the vectors.")
    ] = "zstd"


class LimitsTable(Table, frozen=True):
    """Bounds on hostile or broken input."""

    record_bytes: Annotated[PositiveInt, about("A longer JSONL line or CSV row is not read into memory.")] = 64 * MIB
    text_bytes: Annotated[PositiveInt, about("A longer text (UTF-8 bytes) is not tokenised.")] = 16 * MIB


class RunConfig(Table, frozen=True):
    """One job: everything `embedmill run` can be told."""

    model: Annotated[
        str,
        about("A bundle's name (`embedmill model list`), a bundle folder, or a sentence-transformers folder."),
    ] = DEFAULT_MODEL
    input: InputTable = InputTable()
    columns: ColumnsTable = ColumnsTable()
    rows: RowsTable = RowsTable()
    shard: ShardTable = ShardTable()
    text: TextTable = TextTable()
    engine: EngineTable = EngineTable()
    output: OutputTable = OutputTable()
    limits: LimitsTable = LimitsTable()


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunConfig:
    """The config of a TOML file (None: the defaults), changed by `KEY=VALUE` overrides.

    Raises ConfigError naming the file, the key and the nearest valid one.
    """
    place = str(path) if path is not None else "the command line"
    values = _read_toml(Path(path)) if path is not None else {}
    for override in overrides:
        _apply_override(values, override)
    return parse_config(values, place=place)


def parse_config(values: dict[str, Any], *, place: str) -> RunConfig:
    """A RunConfig from nested plain values; `place` is named in the ConfigError that a bad one raises."""
    _refuse_unknown(values, RunConfig, prefix="", place=place)
    try:
        config = msgspec.convert(values, RunConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {_readable(str(error))}") from error
    _check(config, place)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file; copy configs/default.toml to begin one") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, as in --set shard.rows=1000")
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: `{table}` is a value, not a table")
    values[last] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    """The TOML value that `text` spells, or `text` itself where it spells none (a bare word or path)."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _refuse_unknown(values: dict[str, Any], table: type[Table], *, prefix: str, place: str) -> None:
    known = {field.name: field.type for field in msgspec.structs.fields(table)}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{place}: unknown key `{prefix}{key}`{_suggestion(key, prefix, known)}")
        kind = known[key]
        if isinstance(kind, type) and issubclass(kind, Table):
            if not isinstance(value, dict):
                raise ConfigError(f"{place}: `{prefix}{key}` is a table; write [{key}] and its keys below")
            _refuse_unknown(value, kind, prefix=f"{prefix}{key}.", place=place)


def _suggestion(key: str, prefix: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    if near:
        return f"; did you mean `{prefix}{near[0]}`?"
    return f"; known here: {', '.join(sorted(known))}"


def _readable(message: str) -> str:
    """A msgspec validation message as `` `table.key`: what is wrong ``."""
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message, re.DOTALL)
    if match is None:
        return message
    problem, where = match.groups()
    return f"`{where}`: {problem[0].lower()}{problem[1:]}"


def _check(config: RunConfig, place: str) -> None:
    """The rules that span more than one key."""
    text, columns = config.text, config.columns
    if any("\0" in name for name in (config.model, config.output.path, *config.input.paths)):
        raise ConfigError(f"{place}: a path holds a NUL character; no file can be called that")
    if text.prompt is not None and text.prompt_name is not None:
        raise ConfigError(f"{place}: `text.prompt` and `text.prompt_name` are both set; keep one")
    if text.chunk_tokens and text.chunk_overlap >= text.chunk_tokens:
        raise ConfigError(f"{place}: `text.chunk_overlap` must be smaller than `text.chunk_tokens`")
    if text.chunk_overlap and not text.chunk_tokens:
        raise ConfigError(f"{place}: `text.chunk_overlap` needs `text.chunk_tokens`")
    reserved = set(columns.carry) & OUTPUT_COLUMNS
    if reserved:
        raise ConfigError(f"{place}: `columns.carry` names {sorted(reserved)[0]!r}, an output column's own name")
    if len(set(columns.carry)) != len(columns.carry):
        raise ConfigError(f"{place}: `columns.carry` names a column twice")
    stray = set(columns.types) - set(columns.carry)
    if stray:
        raise ConfigError(f"{place}: `columns.types` has {sorted(stray)[0]!r}, which `columns.carry` lacks")


OUTPUT_COLUMNS = frozenset({"id", "chunk", "char_start", "char_end", "embedding", "n_tokens", "truncated", "text_hash"})
