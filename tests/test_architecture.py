"""The rules of the house, held by reading its source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "pipeline/embedmill"
FILES = sorted(path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py"))

# A power and its owners: a room (with a slash) or a file.
OWNED_MODULES = {
    "onnxruntime": ("engine/",),
    "onnx": ("model/",),
    "google.protobuf": ("model/",),
    "safetensors": ("model/",),
    "huggingface_hub": ("model/",),
    "tokenizers": ("batch/",),
    "click": ("cli/",),
    "tqdm": ("report/",),
    "filelock": ("sink/",),
    "pickle": (),
    "shelve": (),
    "marshal": (),
}
# Only this file renames, links and syncs: by `os`, or by pathlib, where the method's name gives it away.
NAMES_FILES = "base/files/local.py"
OS_NAMING = {"replace", "rename", "renames", "link", "symlink", "fsync", "fdatasync"}
PATH_NAMING = {"rename", "hardlink_to", "symlink_to"}

# Rust's tokenizers raise plain Exception; a thread hands whatever it meets to the one that waits for it;
# the command line asks of every end whether a signal was the cause.
# An `except` that ends with a bare `raise` swallows nothing and is not counted.
BROAD_EXCEPTS = ["base/prefetch.py", "batch/tokenise.py", "cli/main.py"]

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef
Node = TypeVar("Node", bound=ast.AST)


def test_the_house_has_files() -> None:
    assert {"jobs/run.py", "cli/main.py", "base/config.py", "source/__init__.py", "base/files/local.py"} <= set(FILES)


def test_imports_name_the_house_in_full() -> None:
    relative = [place for file in FILES for place in places(file, ast.ImportFrom) if place[1].level]
    assert relative == []


@pytest.mark.parametrize("power", OWNED_MODULES)
def test_a_power_has_one_owner(power: str) -> None:
    users = [file for file in FILES if any(name == power or name.startswith(f"{power}.") for name in modules_of(file))]
    assert [file for file in users if not file.startswith(OWNED_MODULES[power])] == []


def test_files_get_their_names_in_one_place() -> None:
    assert [call for file in FILES if file != NAMES_FILES for call in naming_calls(file)] == []


def test_no_except_is_broad_but_the_listed_ones() -> None:
    broad = [file for file in FILES for _, node in places(file, ast.ExceptHandler) if swallows_everything(node)]
    assert broad == BROAD_EXCEPTS


def test_files_stay_short() -> None:
    lengths = {file: len((HOUSE / file).read_text("utf-8").splitlines()) for file in FILES}
    assert {file: lines for file, lines in lengths.items() if lines > MAX_FILE_LINES} == {}


def test_functions_stay_short() -> None:
    lengths = {place: (node.end_lineno or 0) - node.lineno + 1 for place, node in functions()}
    assert {place: lines for place, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_everything_public_has_a_docstring() -> None:
    modules = [file for file in FILES if tree(file).body and not ast.get_docstring(tree(file))]
    assert modules == []
    assert [place for file in FILES for place, node in public(file) if not ast.get_docstring(node)] == []


def test_every_function_is_annotated_in_full() -> None:
    assert [place for place, node in functions() if not is_annotated(node)] == []


@pytest.mark.parametrize("module", ["embedmill", "embedmill.cli.main"])
def test_start_up_is_quick_because_heavy_libraries_stay_out(module: str) -> None:
    heavy = ("numpy", "pyarrow", "onnxruntime", "onnx", "tokenizers", "tqdm", "huggingface_hub")
    program = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@cache
def tree(file: str) -> ast.Module:
    """The syntax tree of a file of the house."""
    return ast.parse((HOUSE / file).read_text("utf-8"))


def places(file: str, kind: type[Node]) -> Iterator[tuple[str, Node]]:
    """(file:line, node) of each node of a kind."""
    for node in ast.walk(tree(file)):
        if isinstance(node, kind):
            yield f"{file}:{getattr(node, 'lineno', 0)}", node


def modules_of(file: str, *, inside_functions: bool = True) -> set[str]:
    """Every module that a file imports, `from a import b` as `a` and `a.b`."""
    hidden: set[ast.AST] = set()
    if not inside_functions:
        hidden = {child for _, node in places(file, ast.FunctionDef) for child in ast.walk(node)}
    names: set[str] = set()
    for _, node in places(file, ast.Import):
        names |= set() if node in hidden else {alias.name for alias in node.names}
    for _, origin in places(file, ast.ImportFrom):
        if origin.module is not None and origin not in hidden:
            names |= {origin.module, *(f"{origin.module}.{alias.name}" for alias in origin.names)}
    return names


def naming_calls(file: str) -> Iterator[str]:
    """What gives a file its name or makes it durable."""
    for place, node in places(file, ast.Attribute):
        of_os = isinstance(node.value, ast.Name) and node.value.id == "os"
        if node.attr in (OS_NAMING if of_os else PATH_NAMING):
            yield f"{place} {ast.unparse(node)}"
    for place, call in places(file, ast.Call):
        # str.replace takes two arguments, Path.replace one, copy.replace and its like keywords.
        if isinstance(call.func, ast.Attribute) and call.func.attr == "replace" and len(call.args) == 1:
            yield from [] if call.keywords else [f"{place} {ast.unparse(call)}"]
    for place, origin in places(file, ast.ImportFrom):
        if origin.module == "os":
            yield from (f"{place} {alias.name}" for alias in origin.names if alias.name in OS_NAMING)


def swallows_everything(handler: ast.ExceptHandler) -> bool:
    """Whether it catches every exception, alone or among others, and does not end by raising it again."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)
    last = handler.body[-1]
    return broad and not (isinstance(last, ast.Raise) and last.exc is None)


def functions() -> Iterator[tuple[str, Function]]:
    """(file:line name, node) of every function and method, nested ones too."""
    for file in FILES:
        for place, node in places(file, ast.AST):
            if isinstance(node, Function):
                yield f"{place} {node.name}", node


def is_annotated(node: Function) -> bool:
    """Whether every argument and the result have a type."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    bare = [one.arg for one in arguments if one is not None and one.annotation is None]
    return set(bare) <= {"self", "cls"} and node.returns is not None


def public(file: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public functions and classes of a file, and the public methods of those classes."""
    for node in tree(file).body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{file} {node.name}", node
            for member in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(member, Function) and not member.name.startswith("_"):
                    yield f"{file} {node.name}.{member.name}", member
