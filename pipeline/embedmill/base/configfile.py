"""Loading and checking of configurations: TOML files and `--set` options."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from embedmill.base.config import OUTPUT_COLUMNS, RunConfig, Table
from embedmill.base.errors import ConfigError
from embedmill.base.files.names import is_utf8

_MOST_BYTES = 1 << 20
# In TOML's double quotes `\t` is a tab.
_ESCAPED_PATH = re.compile(r"([A-Za-z]:|\\\\)[^\0-\x1f]*[\b\t\n\f\r]")


def load_config(
    path: str | Path | None, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> RunConfig:
    """Load TOML (None: defaults), then values, then `KEY=VALUE` overrides.

    `given` are values by key, such as `output.path`. Raises ConfigError.
    """
    place = str(path) if path is not None else "the command line"
    values = _read_toml(Path(path)) if path is not None else {}
    for key, value in (given or {}).items():
        table, name, _ = _table_of(values, key, key)
        table[name] = value
    for override in overrides:
        _apply_override(values, override)
    return parse_config(values, place=place)


def parse_config(values: dict[str, Any], *, place: str) -> RunConfig:
    """Check nested values from `place` into a RunConfig. Raises ConfigError."""
    _refuse_unknown(values, RunConfig, prefix="", place=place)
    try:
        config = msgspec.convert(values, RunConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{place}: {_readable(str(error))}") from error
    _check(config, place)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as opened:
            content = opened.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ConfigError(f"{path}: more than {_MOST_BYTES >> 20} MiB; name the config file, not the input")
        # Editors of Windows begin a file with a mark.
        return tomllib.loads(content.decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such config file; copy configs/default.toml to start one") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}{_backslash_hint(error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        # Not TOMLDecodeError: an integer of more than 4,300 digits, which Python refuses to parse.
        raise ConfigError(f"{path}: nested too deeply, or holds a number that is too long") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _backslash_hint(error: tomllib.TOMLDecodeError) -> str:
    found = "\\" in str(error) or "hex value" in str(error)
    return r"; write Windows paths in single quotes: 'C:\corpus'" if found else ""


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected KEY=VALUE, as in --set shard.rows=1000")
    if not is_utf8(override):
        raise ConfigError(f"--set {override!r} is not valid UTF-8; correct it, or rename the file or folder")
    table, name, kind = _table_of(values, key.strip(), f"--set {override}")
    table[name] = value = _value(text.lstrip() if key.endswith(" ") else text, kind)
    # Windows PowerShell takes double quotes away from within an argument.
    if isinstance(value, str) and value.startswith(("[", "{")) and not _fits(value, kind):
        raise ConfigError(
            f"--set {override}: this is no TOML, perhaps because the shell took its quotes; write single quotes within"
            """ double ones, as in --set "columns.carry=['url']\""""
        )


def _table_of(values: dict[str, Any], key: str, place: str) -> tuple[dict[str, Any], str, Any]:
    """Return table, name and type of a dotted key."""
    *tables, last = key.split(".")
    kind: Any = RunConfig
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"{place}: `{table}` is a value, not a table")
        kind = _kind_of(kind, table)
    return values, last, _kind_of(kind, last)


def _kind_of(table: Any, key: str) -> Any:
    """Return the type of a table's key."""
    is_table = isinstance(table, type) and issubclass(table, Table)
    fields = msgspec.structs.fields(table) if is_table else ()
    return next((field.type for field in fields if field.name == key), Any)


def _value(text: str, kind: Any) -> Any:
    """Parse a command-line value, as text where only that fits."""
    value = _toml_value(text)
    # A column may well be named 2, or true; a prompt may end in a space, and a delimiter be one.
    return text if not _fits(value, kind) and _fits(text, kind) else value


def _fits(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _toml_value(text: str) -> Any:
    # A bare word or path needs no quotes on the command line.
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _refuse_unknown(values: dict[str, Any], table: type[Table], *, prefix: str, place: str) -> None:
    # msgspec refuses unknown keys as well, but cannot suggest the nearest one.
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
    return f"; did you mean `{prefix}{near[0]}`?" if near else f"; known here: {', '.join(sorted(known))}"


def _readable(message: str) -> str:
    # msgspec puts the place last: "Expected `int`, got `str` - at `$.shard.rows`".
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message, re.DOTALL)
    if match is None:
        return message
    problem, where = match.groups()
    return f"`{where}`: {problem[0].lower()}{problem[1:]}"


def _check(config: RunConfig, place: str) -> None:
    """Check the rules that span several keys."""
    text, columns = config.text, config.columns
    for value in _texts(msgspec.to_builtins(config)):
        if not is_utf8(value):
            raise ConfigError(f"{place}: {value!r} is not valid UTF-8; correct it, or rename the file or folder")
    for path in (config.model, config.output.path, *config.input.paths):
        if "\0" in path:
            raise ConfigError(f"{place}: a path contains a NUL character, which no file name can")
        if _ESCAPED_PATH.match(path):
            raise ConfigError(
                rf"{place}: {path!r} has a control character where a backslash and a letter were meant; write Windows"
                r" paths in single quotes: 'C:\temp'"
            )
    if not config.output.path.strip():
        raise ConfigError(f"{place}: `output.path` is empty; name a folder")
    if "://" in config.output.path:
        raise ConfigError(f"{place}: {config.output.path!r} is no local folder; write to one, then copy it")
    if text.prompt is not None and text.prompt_name is not None:
        raise ConfigError(f"{place}: `text.prompt` and `text.prompt_name` are both set; use one")
    if text.chunk_tokens and text.chunk_overlap >= text.chunk_tokens:
        raise ConfigError(f"{place}: `text.chunk_overlap` must be smaller than `text.chunk_tokens`")
    if text.chunk_overlap and not text.chunk_tokens:
        raise ConfigError(f"{place}: `text.chunk_overlap` needs `text.chunk_tokens`")
    if len(set(columns.carry)) != len(columns.carry):
        raise ConfigError(f"{place}: `columns.carry` names a column twice")
    for key, named in (("types", columns.types), ("carry_as", columns.carry_as)):
        if stray := set(named) - set(columns.carry):
            raise ConfigError(f"{place}: `columns.{key}` names {sorted(stray)[0]!r}, which is not in `columns.carry`")
    _check_output_columns([columns.carry_as.get(name, name) for name in columns.carry], place)
    if columns.names and config.input.csv_header:
        raise ConfigError(f"{place}: `columns.names` is for CSV without a header; set `input.csv_header` = false too")
    if len(set(columns.names)) != len(columns.names):
        raise ConfigError(f"{place}: `columns.names` names a column twice")


def _texts(values: Any) -> Iterator[str]:
    """Yield keys and values that are text, at any depth."""
    match values:
        case str():
            yield values
        case dict():
            yield from _texts([*values, *values.values()])
        case list() | tuple():
            for value in values:
                yield from _texts(value)


def _check_output_columns(names: list[str], place: str) -> None:
    for name in names:
        # SQL knows no case of names.
        if name.lower() in OUTPUT_COLUMNS:
            raise ConfigError(
                f"{place}: `columns.carry` names {name!r}, which is an output column; give it another name there, as in"
                f' columns.carry_as = {{ {name} = "my_{name}" }}'
            )
        if not name or [other.lower() for other in names].count(name.lower()) > 1:
            raise ConfigError(
                f"{place}: `columns.carry` with `columns.carry_as` gives two columns the name {name!r} (capitals do not"
                " count), or one none; set other names in `columns.carry_as`"
            )
