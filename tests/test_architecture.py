"""The rules of the house, held by reading its source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "pipeline/embedmill"
FILES = sorted(path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py"))

# Rule 1. A room imports itself and rooms of lower floors; the two doors stand above all.
FLOORS = (
    {"base"},
    {"source", "batch", "model", "engine", "sink", "index"},
    {"tune"},
    {"report"},
    {"jobs"},
    {"cli"},
)
# Rule 2. The same inside `engine/`.
ENGINE_FLOORS = (
    {"machine", "catalogue"},
    {"devices", "availability"},
    {"target"},
    {"spec", "sessions", "memory"},
    {"runners"},
    {"engine"},
)
# Rule 5. What one job may import of the others.
JOBS_SHARED = {"job", "models", "report", "executors"}
JOBS_BESIDES = {"search": {"embed"}}

# Rule 7. A power and its owners: a folder (with a slash) or a file.
OWNED_MODULES = {
    "onnxruntime": ("engine/sessions/", "engine/devices.py", "engine/availability.py"),
    "onnx": ("model/",),
    "google.protobuf": ("model/",),
    "safetensors": ("model/",),
    "huggingface_hub": ("model/",),
    "tokenizers": ("batch/",),
    "pyarrow.flight": ("engine/runners/flight.py",),
    "openai": ("engine/runners/cloud.py",),
    "ray": ("jobs/executors/ray.py",),
    "lancedb": ("index/lance.py",),
    "psycopg": ("index/pgvector.py",),
    "faiss": ("index/faiss.py",),
    "obstore": ("base/files/",),
    "fsspec": ("base/files/",),
    "pyarrow.fs": ("base/files/",),
    "ctypes": ("engine/machine/",),
    "subprocess": ("base/process/", "engine/machine/processor.py"),
    "click": ("cli/",),
    "tqdm": ("report/progress.py",),
    "filelock": ("sink/",),
    "pickle": (),
    "shelve": (),
    "marshal": (),
}
# Only this file renames, links and syncs: by `os`, or by pathlib, where the method's name gives it away.
NAMES_FILES = "base/files/local.py"
OS_NAMING = {"replace", "rename", "renames", "link", "symlink", "fsync", "fdatasync"}
PATH_NAMING = {"rename", "hardlink_to", "symlink_to"}

# Rule 8. Where a format or a provider may be compared with a string.
MAY_COMPARE = ("source/formats/", "engine/catalogue/")

# Rust's tokenizers raise plain Exception; a thread hands whatever it meets to the one that waits for it;
# the command line asks of every end whether a signal was the cause.
# An `except` that ends with a bare `raise` swallows nothing and is not counted.
BROAD_EXCEPTS = ["base/prefetch.py", "batch/tokenise.py", "cli/main.py"]

# Rule 10. 300 lines is where one asks whether a file holds two concepts; those that hold one, and why.
MAX_FILE_LINES = 300
LONG_FILES: dict[str, str] = {}
MAX_FUNCTION_LINES = 40

# The subject of a first line is a verb or a term, never a pronoun or a question.
RIDDLE = re.compile(
    r"(?i:\b(it|its|itself|they|them|their|those|these|who|whose|whom)\b)|^(What|How|Which|Who|Where|Whether)\b"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Node = TypeVar("Node", bound=ast.AST)


def test_the_house_has_files() -> None:
    assert {"jobs/run.py", "cli/main.py", "base/config.py", "source/__init__.py", "base/files/local.py"} <= set(FILES)


def test_the_root_holds_two_doors_and_the_rooms() -> None:
    assert {file for file in FILES if "/" not in file} == {"__init__.py", "__main__.py"}
    assert {file.split("/")[0] for file in FILES if "/" in file} <= set().union(*FLOORS)


def test_a_room_imports_itself_and_lower_floors() -> None:
    levels = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    assert [
        f"{file} imports {name}"
        for file in FILES
        if (room := file.split("/")[0]) in levels
        for name in house_imports(file)
        if (other := part(name, 1)) != room and levels.get(other, len(FLOORS)) >= levels[room]
    ] == []


def test_inside_the_engine_the_same_holds() -> None:
    levels = {place: floor for floor, places in enumerate(ENGINE_FLOORS) for place in places}
    assert [
        f"{file} imports {name}"
        for file in FILES
        if file.startswith("engine/") and (place := file.split("/")[1].removesuffix(".py")) in levels
        for name in house_imports(file)
        if part(name, 1) == "engine" and (other := part(name, 2)) != place
        if levels.get(other, -1) >= levels[place]
    ] == []
    assert {file.split("/")[1].removesuffix(".py") for file in FILES if file.startswith("engine/")} - {"__init__"} == {
        *levels
    }


def test_the_base_imports_no_room() -> None:
    base = [file for file in FILES if file.startswith("base/")]
    assert [(file, name) for file in base for name in house_imports(file) if part(name, 1) != "base"] == []


def test_reports_take_types_and_do_no_work() -> None:
    reports = [file for file in FILES if file.startswith("report/")]
    at_run_time = [(file, name) for file in reports for name in house_imports(file, for_types=False)]
    assert [found for found in at_run_time if part(found[1], 1) not in ("base", "report")] == []
    assert [file for file in reports if "typing.Any" in modules_of(file)] == []


def test_a_job_imports_of_the_jobs_what_all_begin_with() -> None:
    assert [
        f"{file} imports {name}"
        for file in FILES
        if file.startswith("jobs/")
        for name in house_imports(file)
        if part(name, 1) == "jobs" and part(name, 2)
        if part(name, 2) not in JOBS_SHARED | JOBS_BESIDES.get(Path(file).stem, set()) | {Path(file).stem}
    ] == []


def test_the_command_line_opens_jobs_and_reports_inside_a_command() -> None:
    commands = [file for file in FILES if file.startswith("cli/")]
    at_the_top = {part(name, 1) for file in commands for name in house_imports(file, inside_functions=False)}
    assert at_the_top <= {"base", "cli"}


def test_nothing_is_decided_by_the_name_of_a_format_or_a_provider() -> None:
    assert [place for file in FILES if not file.startswith(MAY_COMPARE) for place in named_decisions(file)] == []


def test_a_name_means_one_thing() -> None:
    classes = [(node.name, file) for file in FILES for node in tree(file).body if isinstance(node, ast.ClassDef)]
    names = Counter(name for name, _ in classes if not name.startswith("_"))
    assert [found for found in classes if names[found[0]] > 1] == []


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
    assert {file for file, lines in lengths.items() if lines > MAX_FILE_LINES} == set(LONG_FILES)


def test_functions_stay_short() -> None:
    lengths = {place: (node.end_lineno or 0) - node.lineno + 1 for place, node in functions()}
    assert {place: lines for place, lines in lengths.items() if lines > MAX_FUNCTION_LINES} == {}


def test_everything_public_has_a_docstring() -> None:
    modules = [file for file in FILES if tree(file).body and not ast.get_docstring(tree(file))]
    assert modules == []
    assert [place for file in FILES for place, node in public(file) if not ast.get_docstring(node)] == []


def test_docstrings_begin_with_a_short_line_without_pronouns() -> None:
    """At most ten words; the subject is a verb or a term of the trade."""
    firsts = [(place, (ast.get_docstring(node) or "").split("\n")[0]) for place, node in documented()]
    assert [(place, first) for place, first in firsts if len(first.split()) > 10 or RIDDLE.search(first)] == []


def test_comments_say_why_on_one_line_in_forty_to_twenty() -> None:
    lines = [line.strip() for file in FILES for line in (HOUSE / file).read_text("utf-8").splitlines()]
    assert 0.025 <= sum(line.startswith("#") for line in lines) / len(lines) <= 0.05


def test_every_function_is_annotated_in_full() -> None:
    assert [place for place, node in functions() if not is_annotated(node)] == []


@pytest.mark.parametrize("module", ["embedmill", "embedmill.cli.main"])
def test_start_up_is_quick_because_heavy_libraries_stay_out(module: str) -> None:
    heavy = ("numpy", "pyarrow", "onnxruntime", "onnx", "tokenizers", "tqdm", "huggingface_hub")
    program = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_a_run_does_not_load_what_only_a_bundle_or_a_bench_needs() -> None:
    rare = ("onnx", "huggingface_hub")
    program = f"import sys, embedmill.jobs.run; print([name for name in {rare!r} if name in sys.modules])"
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


def modules_of(file: str, *, inside_functions: bool = True, for_types: bool = True) -> set[str]:
    """Every module that a file imports, `from a import b` as `a` and `a.b`.

    `for_types` counts what is imported under TYPE_CHECKING too.
    """
    hidden: set[ast.AST] = set()
    if not inside_functions:
        hidden |= {child for _, node in places(file, ast.FunctionDef) for child in ast.walk(node)}
    if not for_types:
        checks = [node for _, node in places(file, ast.If) if ast.unparse(node.test) == "TYPE_CHECKING"]
        hidden |= {child for check in checks for node in check.body for child in ast.walk(node)}
    names: set[str] = set()
    for _, node in places(file, ast.Import):
        names |= set() if node in hidden else {alias.name for alias in node.names}
    for _, origin in places(file, ast.ImportFrom):
        if origin.module is not None and origin not in hidden:
            names |= {origin.module, *(f"{origin.module}.{alias.name}" for alias in origin.names)}
    return names


def house_imports(file: str, *, inside_functions: bool = True, for_types: bool = True) -> set[str]:
    """The modules of the house that a file imports, in full: `embedmill.engine.spec`."""
    names = modules_of(file, inside_functions=inside_functions, for_types=for_types)
    return {name for name in names if name.startswith("embedmill.") and is_module(name)}


def is_module(name: str) -> bool:
    """Whether a dotted name is a file or folder of the house, and not something in one."""
    path = HOUSE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def part(name: str, number: int) -> str:
    """Part of a dotted name: 1 is the room; empty where there is none."""
    parts = name.split(".")
    return parts[number] if number < len(parts) else ""


def named_decisions(file: str) -> Iterator[str]:
    """Comparisons of `.format`, or of the `.name` or `.ort_name` of a provider, with a string."""
    for place, node in places(file, ast.Compare):
        sides = [node.left, *node.comparators]
        against_text = any(
            isinstance(leaf, ast.Constant) and isinstance(leaf.value, str) for side in sides for leaf in ast.walk(side)
        )
        of_format = any(isinstance(side, ast.Attribute) and side.attr == "format" for side in sides)
        of_provider = any(
            isinstance(side, ast.Attribute)
            and side.attr in ("name", "ort_name", "provider")
            and "provider" in ast.unparse(side).lower()
            for side in sides
        )
        if against_text and (of_format or of_provider):
            yield f"{place} {ast.unparse(node)}"


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


def documented() -> Iterator[tuple[str, ast.Module | ast.ClassDef | Function]]:
    """(file:line, node) of every module, class and function with a docstring."""
    for file in FILES:
        for place, node in places(file, ast.AST):
            if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node):
                yield place, node


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
