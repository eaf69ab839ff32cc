"""Lengths, docstrings, comments, annotations, and errors that nothing hides."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.architecture.house import SOURCES, Function, broken, planted
from tests.architecture.names import Source

# Rust's tokenizers raise plain Exception; a thread hands whatever it meets to the one that waits for it;
# the command line asks of every end whether a signal was the cause.
# An `except` that ends with a bare `raise` swallows nothing and is not counted.
BROAD_EXCEPTS = ["base/prefetch.py", "batch/tokenise.py", "batch/tokenise.py", "cli/main.py"]
BROAD = {"builtins.Exception", "builtins.BaseException"}

# Rule 10. 300 lines is where one asks whether a file holds two concepts; those that hold one, and why.
MAX_FILE_LINES = 300
LONG_FILES: dict[str, str] = {}
MAX_FUNCTION_LINES = 40

# The subject of a first line is a verb or a term, never a pronoun or a question.
RIDDLE = re.compile(
    r"(?i:\b(it|its|itself|they|them|their|those|these|who|whose|whom)\b)|^(What|How|Which|Who|Where|Whether)\b"
)


def swallowing(source: Source) -> Iterator[str]:
    """What catches every exception and does not end by raising it again."""
    for spot in source.spots:
        match spot.node:
            case ast.ExceptHandler(type=kind, body=body):
                # A tuple, also one that has a name.
                kind = source.values.get(kind.id, kind) if isinstance(kind, ast.Name) else kind
                kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
                raised = isinstance(body[-1], ast.Raise) and body[-1].exc is None
            case ast.Call(func=called, args=kinds) if source.dotted(called) == "contextlib.suppress":
                raised = False
            case _:
                continue
        if not raised and any(kind is None or source.dotted(kind) in BROAD for kind in kinds):
            yield source.file


def test_no_except_is_broad_but_the_listed_ones() -> None:
    assert broken(swallowing) == BROAD_EXCEPTS


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    pass\nexcept:\n    pass",
        "try:\n    pass\nexcept Exception:\n    pass",
        "try:\n    pass\nexcept* Exception:\n    pass",
        "try:\n    pass\nexcept (ValueError, BaseException):\n    pass",
        "import builtins\ntry:\n    pass\nexcept builtins.Exception:\n    pass",
        "Any = Exception\ntry:\n    pass\nexcept Any as error:\n    raise ValueError from error",
        "ALL = (OSError, Exception)\ntry:\n    pass\nexcept ALL:\n    pass",
        "import contextlib\nwith contextlib.suppress(Exception):\n    pass",
        "from contextlib import suppress as ignore\nwith ignore(OSError, BaseException):\n    pass",
    ],
)
def test_a_broad_except_is_caught(text: str) -> None:
    assert planted(swallowing, "sink/shard.py", text)


def test_an_error_that_is_raised_again_is_not_swallowed() -> None:
    assert planted(swallowing, "sink/shard.py", "try:\n    pass\nexcept BaseException:\n    a()\n    raise") == []


def test_files_stay_short() -> None:
    assert {one.file for one in SOURCES if len(one.lines) > MAX_FILE_LINES} == set(LONG_FILES)


def test_functions_stay_short() -> None:
    lengths = {place: (node.end_lineno or 0) - node.lineno + 1 for place, node in functions()}
    assert {place: lines for place, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_everything_public_has_a_docstring() -> None:
    assert [one.file for one in SOURCES if one.tree.body and not ast.get_docstring(one.tree)] == []
    assert [place for source in SOURCES for place, node in public(source) if not ast.get_docstring(node)] == []


def test_docstrings_begin_with_a_short_line_without_pronouns() -> None:
    """At most ten words; the subject is a verb or a term of the trade."""
    firsts = [(place, (ast.get_docstring(node) or "").split("\n")[0]) for place, node in documented()]
    assert [(place, first) for place, first in firsts if len(first.split()) > 10 or RIDDLE.search(first)] == []


def test_comments_say_why_on_one_line_in_forty_to_twenty() -> None:
    lines = [line.strip() for source in SOURCES for line in source.lines]
    assert 0.025 <= sum(line.startswith("#") for line in lines) / len(lines) <= 0.05


def test_every_function_is_annotated_in_full() -> None:
    assert [place for place, node in functions() if not is_annotated(node)] == []


def functions() -> Iterator[tuple[str, Function]]:
    """(file:line, node) of every function and method, nested ones too."""
    for source in SOURCES:
        for spot in source.spots:
            if isinstance(spot.node, Function):
                yield f"{source.file}:{spot.node.lineno} {spot.node.name}", spot.node


def documented() -> Iterator[tuple[str, ast.Module | ast.ClassDef | Function]]:
    """(file, node) of every module, class and function with a docstring."""
    for source in SOURCES:
        for spot in source.spots:
            if isinstance(spot.node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(spot.node):
                yield f"{source.file}:{getattr(spot.node, 'lineno', 0)}", spot.node


def is_annotated(node: Function) -> bool:
    """Whether every argument and the result have a type."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    bare = [one.arg for one in arguments if one is not None and one.annotation is None]
    return set(bare) <= {"self", "cls"} and node.returns is not None


def public(source: Source) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions and classes of a file, and the public methods of those classes."""
    for node in source.tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{source.file} {node.name}", node
            for member in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(member, Function) and not member.name.startswith("_"):
                    yield f"{source.file} {node.name}.{member.name}", member
