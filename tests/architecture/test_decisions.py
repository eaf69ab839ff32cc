"""No `if` by name, one name for one thing, and no world inside the tuner and the packer."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

from embedmill.engine.catalogue import PROVIDERS
from embedmill.source.formats import FORMATS
from tests.architecture.house import SOURCES, Rule, broken, planted
from tests.architecture.names import HOUSE, Source, assigned

# Rule 8. The names of providers, formats and file endings, and where they may decide something.
PROVIDER_NAMES = {name for provider in PROVIDERS for name in (provider.name, provider.ort.name)}
WORDS = PROVIDER_NAMES | FORMATS.keys() | {ending for one in FORMATS.values() for ending in one.ENDINGS}
MAY_COMPARE = ("source/formats/", "engine/catalogue/")
# Words that mean something else in a file: a model's configuration is no input.
OTHERWISE = {"model/contents.py": {".json"}}
# Methods of texts, tables and patterns whose first argument may be a name.
ASKING = {"startswith", "endswith", "removeprefix", "removesuffix", "get", "pop", "index", "count", "find"}
ASKING |= {"match", "fullmatch", "search", "fnmatch"}
LITERALS = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict)

# The tuner's search and the packer take values and give values.
PURE = ("tune/search/", "batch/pack.py")
PURE_IMPORTS = {"__future__", "collections", "heapq", "itertools", "math", "msgspec", "numpy", "statistics", "typing"}
PURE_IMPORTS |= {f"embedmill.base.{name}" for name in ("config", "errors", "records")}
PURE_IMPORTS |= {"embedmill.batch.pack", "embedmill.tune.search"}
IMPURE = {"builtins.open", "builtins.print", "builtins.input", "numpy.random"}
IMPURE |= {
    f"numpy.{name}" for name in ("fromfile", "genfromtxt", "load", "loadtxt", "memmap", "save", "savetxt", "savez")
}


def constants(source: Source) -> Iterator[tuple[str, set[str]]]:
    """Yield names that are assigned literals anywhere in a file, and the texts in those."""
    for spot in source.spots:
        if isinstance(spot.node, ast.Assign | ast.AnnAssign) and spot.node.value is not None:
            value = spot.node.value
            value = value.args[0] if isinstance(value, ast.Call) and value.args else value
            if isinstance(value, LITERALS):
                yield from ((name, texts(value)) for name in assigned(spot.node))


def texts(node: ast.AST) -> set[str]:
    """Return the texts written in an expression."""
    leaves = (leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant))
    return {leaf for leaf in leaves if isinstance(leaf, str)}


CONSTANTS = {f"{source.module}.{name}": held for source in SOURCES for name, held in constants(source)}


def named_decisions(source: Source) -> Iterator[str]:
    """What depends on a name: a comparison, a pattern, a prefix, a look-up in a table."""
    own = dict(constants(source))
    for spot in source.spots if not source.file.startswith(MAY_COMPARE) else ():
        for node in deciding(spot.node, source):
            held = texts(node)
            for leaf in ast.walk(node):
                dotted = source.dotted(leaf)
                held |= CONSTANTS.get(dotted, set()) | own.get(last_part(leaf), set())
                # `CPU.name` of an entry of the catalogue.
                held |= WORDS if re.fullmatch(r"embedmill\.engine\.catalogue\..*\.name", dotted) else set()
            if any(is_name(text, spot.node) for text in held - OTHERWISE.get(source.file, set())):
                yield source.place(spot.node)


def last_part(node: ast.AST) -> str:
    """Return the last name of an expression: `CPU` of `CPU` and `A.CPU`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def deciding(node: ast.AST, source: Source) -> list[ast.expr]:
    """Return the expressions whose texts decide what happens."""
    match node:
        case ast.Compare(left=left, comparators=others):
            return [left, *others]
        case ast.MatchValue(value=value):
            return [value]
        case ast.Subscript(value=table, slice=key) if not source.dotted(table).startswith("typing."):
            return [key]
        case ast.Call(func=ast.Attribute(value=asked, attr=method), args=[first, *_]) if method in ASKING:
            return [first, asked] if isinstance(asked, LITERALS) else [first]
        case ast.Dict(keys=keys) | ast.MatchMapping(keys=keys):
            return [key for key in keys if key is not None]
    return []


def is_name(text: str, node: ast.AST) -> bool:
    """Return whether a text is a name, or the beginning or end of one where these are compared."""
    match node:
        case ast.Call(func=ast.Attribute(attr="startswith")):
            return any(name.startswith(text) for name in WORDS if text.strip("."))
        case ast.Call(func=ast.Attribute(attr="endswith")):
            return any(name.endswith(text) for name in WORDS if text.strip("."))
    return text.strip("*") in WORDS


def types(source: Source) -> Iterator[str]:
    """Yield the public types of a file: classes and aliases, below conditions too."""
    for spot in source.spots:
        if isinstance(spot.node, ast.ClassDef) and not spot.lazy:
            yield spot.node.name
        elif isinstance(spot.node, ast.Assign | ast.AnnAssign) and not (spot.lazy or is_variable(spot.node, source)):
            yield from (name for name in assigned(spot.node) if name[0].isupper() and not name.isupper())


def is_variable(node: ast.Assign | ast.AnnAssign, source: Source) -> bool:
    """Return whether it makes a type variable, which stands for any type and not for one thing."""
    return isinstance(node.value, ast.Call) and source.dotted(node.value.func) == "typing.TypeVar"


def impure(source: Source) -> Iterator[str]:
    """What the tuner's search and the packer have of the world."""
    calls = (spot.node for spot in source.spots if isinstance(spot.node, ast.Call))
    seeded = {id(call.func) for call in calls if call.args and ast.unparse(call.args[0]) != "None"}
    for name in source.names if source.file.startswith(PURE) else ():
        allowed = any(name.is_in(module) for module in PURE_IMPORTS) or not name.imports
        random = name.is_in("numpy.random.default_rng") and (name.imports or id(name.node) in seeded)
        if not allowed or (any(name.is_in(one) for one in IMPURE) and not random):
            yield source.place(name.node)


@pytest.mark.parametrize("rule", [named_decisions, impure])
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    assert broken(rule) == []


def test_a_name_means_one_thing() -> None:
    assert same_names(SOURCES) == {}


def same_names(sources: list[Source]) -> dict[str, list[str]]:
    """Return the public types that more than one place defines."""
    files: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        for name in types(source):
            files[name].append(source.file)
    return {name: found for name, found in files.items() if len(found) > 1 and not name.startswith("_")}


@pytest.mark.parametrize(
    "text",
    [
        "class Ledger: ...",
        "if a:\n    class Ledger: ...",
        "Ledger = int",
        "Ledger: TypeAlias = int",
        "Ledger = NewType('Ledger', int)",
    ],
)
def test_a_second_thing_of_a_name_is_caught(text: str) -> None:
    assert "Ledger" in same_names([*SOURCES, Source("jobs/doctor.py", text)])


@pytest.mark.parametrize(
    "text",
    [
        'a.name == "cpu"',
        '"directml" != name',
        'name in ("cpu", "other")',
        'ort_name not in {"CUDAExecutionProvider"}',
        'CPU = "cpu"\ndef f(name):\n    return name == CPU',
        'FAST = frozenset({"cuda", "a"})\nname in FAST',
        "from embedmill.engine.catalogue.cpu import CPU\nname == CPU.name",
        'match a.name:\n    case "cpu":\n        pass',
        'match a:\n    case A(name="x" | "cpu"):\n        pass',
        'name.startswith("direct")',
        'name.startswith(("x", "direct"))',
        'name.endswith("ExecutionProvider")',
        'RATES = {"cpu": 1}\nRATES[name]',
        '{"cpu": True}.get(name)',
        'rates["cpu"]',
        'rates.get("cpu")',
        're.fullmatch("cpu", name)',
        'path.match("*.csv")',
        '["cpu", "cuda"].index(name)',
        'def f(name):\n    wanted = "cpu"\n    return name == wanted',
        'class A:\n    CPU = "cpu"\nname == A.CPU',
        'file.format == "csv"',
        'path.suffix == ".csv"',
        'path.name.endswith(".parquet")',
        'match file.format:\n    case "csv":\n        pass',
    ],
)
def test_a_decision_by_name_is_caught(text: str) -> None:
    assert planted(named_decisions, "jobs/doctor.py", text)
    assert planted(named_decisions, "source/formats/csv.py", text) == []


@pytest.mark.parametrize("text", ['print("cpu")', "a.name == b.name", 'bind("cpu", a)', 'name.startswith("_")'])
def test_a_name_that_decides_nothing_is_allowed(text: str) -> None:
    assert planted(named_decisions, "jobs/doctor.py", text) == []


@pytest.mark.parametrize("file", ["tune/search/sweep.py", "batch/pack.py"])
@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from time import perf_counter",
        "import random",
        "import os",
        "import threading",
        "from pathlib import Path",
        "open('a')",
        "import numpy as np\nnp.random.default_rng()",
        "import numpy as np\nnp.random.default_rng(None)",
        "import numpy as np\nnp.random.normal()",
        "from numpy.random import normal",
        "import numpy as np\nnp.fromfile('a')",
        "from embedmill.base.home import home_folder",
        "from embedmill.engine.sessions.session import Session",
        "from embedmill.engine.runners.start import runner_for",
    ],
)
def test_the_world_in_a_pure_place_is_caught(file: str, text: str) -> None:
    assert planted(impure, file, text)


def test_seeded_chance_is_pure() -> None:
    assert planted(impure, "batch/pack.py", "import numpy as np\nnp.random.default_rng(3)") == []


def test_the_pure_places_exist() -> None:
    assert all((HOUSE / place).exists() for place in PURE)
