"""Writes docs/configuration.md from the config structs: `python -m docs`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from embedmill.base.config import RunConfig, Table

TARGET = Path(__file__).parent / "configuration.md"
_HEAD = """# Configuration

Generated from `pipeline/embedmill/base/config.py` by `python -m docs` (`make docs`); do not edit.

A job is a TOML file: `embedmill run job.toml`. Every key has a default; `configs/default.toml` shows them all. Any key
can be given on the command line too, as `--set TABLE.KEY=VALUE`. An unknown key is an error.

Keys of `[engine]`, and `model`, `input.paths`, `output.path`, `rows.max_quarantined`, `limits.carried_bytes`,
`limits.expansion` and `limits.window_log`, may differ when a run is resumed. Every other key changes what is written
(the model counts by its identity, the input by its files): a resume with another value is refused.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_section("", RunConfig)]) + "\n"


def _section(name: str, table: type[Table]) -> Iterator[str]:
    fields = msgspec.structs.fields(table)
    hints = get_type_hints(table, include_extras=True)
    yield f"## {f'[{name}]' if name else 'Top level'}\n"
    yield f"{inspect.getdoc(table)}\n"
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    plain = [field for field in fields if not _is_table(hints[field.name])]
    for field in plain:
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
        yield f"| `{field.name}` | {_type(hints[field.name])} | {_value(default)} | {_meaning(hints[field.name])} |"
    yield ""
    for field in fields:
        if _is_table(hints[field.name]):
            yield from _section(field.name, hints[field.name])


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Table)


def _meaning(hint: Any) -> str:
    """The description in a field's annotations."""
    found = [meta.description for meta in getattr(hint, "__metadata__", ()) if meta.description]
    return str(found[0]) if found else ""


def _type(hint: Any) -> str:
    """A type in words a TOML author knows."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [
            f" {sign} {bound}"
            for meta in hint.__metadata__
            for sign, bound in ((">", meta.gt), (">=", meta.ge), ("<=", meta.le))
            if bound is not None
        ]
        return _type(arguments[0]) + ",".join(bounds)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not NoneType)
    if origin is tuple:
        return f"list of {_type(arguments[0])}s"
    if origin is dict:
        return "table"
    return {str: "string", int: "integer", float: "number", bool: "`true`, `false`"}[hint]


def _value(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, tuple | list):
        return "`[]`"
    return f"`{msgspec.json.encode(value).decode()}`"


if __name__ == "__main__":
    TARGET.write_text(reference(), "utf-8")
    print(TARGET)
