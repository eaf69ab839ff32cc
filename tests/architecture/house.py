"""All files of the package, read once, and what the rules ask of a name."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator

from tests.architecture.names import HOUSE, Name, Source

FILES = sorted(path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py"))
SOURCES = [Source(file, (HOUSE / file).read_text("utf-8")) for file in FILES]

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[Source], Iterable[str]]


def broken(rule: Rule) -> list[str]:
    """Return every place of the package that breaks a rule."""
    return [place for source in SOURCES for place in rule(source)]


def planted(rule: Rule, file: str, text: str) -> list[str]:
    """Return what breaks a rule if a file of the package were this text."""
    return list(rule(Source(file, text)))


def house_names(source: Source) -> Iterator[Name]:
    """Yield what a file imports and uses of the package."""
    return (name for name in source.names if name.is_in("embedmill"))


def part(name: str, number: int) -> str:
    """Part of a dotted name: 1 is the room; empty where there is none."""
    parts = name.split(".")
    return parts[number] if number < len(parts) else ""


def place_in(file: str, number: int) -> str:
    """Part of a file's path: 0 is the room."""
    return file.split("/")[number].removesuffix(".py")
