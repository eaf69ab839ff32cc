"""Rooms import lower floors only, by whatever road."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.architecture.house import FILES, SOURCES, Rule, broken, house_names, part, place_in, planted
from tests.architecture.names import HOUSE, Source, is_module

# Rule 1. A room imports itself and rooms of lower floors; the two doors stand above all.
FLOORS = (
    {"base"},
    {"source", "batch", "model", "engine", "sink", "index"},
    {"tune"},
    {"report"},
    {"jobs"},
    {"cli"},
)
# Rule 2. The same inside `engine/`, whose own file is run by every import of something in it.
ENGINE_FLOORS = (
    {"__init__"},
    {"machine", "catalogue"},
    {"runtime"},
    {"plugins"},
    {"devices", "availability"},
    {"target"},
    {"spec", "sessions", "memory"},
    {"runners"},
    {"engine"},
)
# Rule 5. What one job may import of the others.
JOBS_SHARED = {"job", "models", "report", "executors"}
JOBS_BESIDES = {"search": {"embed"}}

LEVELS = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
ENGINE_LEVELS = {place: floor for floor, places in enumerate(ENGINE_FLOORS) for place in places}


def upward(source: Source) -> Iterator[str]:
    """Names of the same or a higher floor; the package itself is the highest."""
    room = place_in(source.file, 0)
    for name in house_names(source) if room in LEVELS else ():
        other = part(name.dotted, 1)
        if other != room and LEVELS.get(other, len(FLOORS)) >= LEVELS[room]:
            yield source.place(name.node)


def upward_in_engine(source: Source) -> Iterator[str]:
    """The same inside `engine/`."""
    place = place_in(source.file, 1) if source.file.startswith("engine/") else ""
    for name in house_names(source) if place in ENGINE_LEVELS else ():
        other = part(name.dotted, 2) or "__init__"
        above = ENGINE_LEVELS.get(other, len(ENGINE_FLOORS)) >= ENGINE_LEVELS[place]
        if part(name.dotted, 1) == "engine" and other != place and above:
            yield source.place(name.node)


def work_in_reports(source: Source) -> Iterator[str]:
    """What `report/` has of rooms at run time, and `Any`."""
    for name in source.names if source.file.startswith("report/") else ():
        of_a_room = name.is_in("embedmill") and part(name.dotted, 1) not in ("base", "report")
        if (of_a_room and not name.for_types) or name.dotted.endswith(".Any"):
            yield source.place(name.node)


def other_jobs(source: Source) -> Iterator[str]:
    """What a job imports of the jobs, besides what all begin with."""
    own = source.file.split("/")[-1].removesuffix(".py")
    allowed = {"", own} | JOBS_SHARED | JOBS_BESIDES.get(own, set())
    for name in house_names(source) if source.file.startswith("jobs/") else ():
        if part(name.dotted, 1) == "jobs" and part(name.dotted, 2) not in allowed:
            yield source.place(name.node)


def early_in_commands(source: Source) -> Iterator[str]:
    """What `cli/` imports of other rooms outside its commands."""
    for name in house_names(source) if source.file.startswith("cli/") else ():
        if not name.lazy and part(name.dotted, 1) not in ("base", "cli"):
            yield source.place(name.node)


def unnamed(source: Source) -> Iterator[str]:
    """Imports that do not say in full what they take: `from . import a`, `import embedmill.a`, `from a import *`."""
    for name in source.names:
        plain = isinstance(name.node, ast.Import) and name.is_in("embedmill")
        if name.imports and (plain or name.dotted.startswith(".") or name.dotted.endswith("*")):
            yield source.place(name.node)


RULES = [upward, upward_in_engine, work_in_reports, other_jobs, early_in_commands, unnamed]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    assert broken(rule) == []


@pytest.mark.parametrize(
    ("rule", "file", "text"),
    [
        (upward, "source/plan.py", "from embedmill.sink import ledger"),
        (upward, "source/plan.py", "def f():\n    from embedmill.jobs import run"),
        (upward, "source/plan.py", "try:\n    from embedmill.sink import ledger\nexcept ImportError:\n    pass"),
        (upward, "source/plan.py", "if TYPE_CHECKING:\n    from embedmill.sink import ledger"),
        (upward, "base/home.py", "from embedmill.model import names"),
        (upward, "batch/pack.py", "from embedmill import run"),
        (upward, "batch/pack.py", "from embedmill import *"),
        (upward, "batch/pack.py", "import embedmill\nX = embedmill.run"),
        (upward, "batch/pack.py", "import embedmill.base.home\nX = embedmill.jobs.run"),
        (upward, "batch/pack.py", 'import importlib\nX = importlib.import_module("embedmill.engine.engine")'),
        (upward, "batch/pack.py", 'from importlib import import_module as load\nX = load("embedmill.engine.engine")'),
        (upward, "batch/pack.py", 'X = __import__("embedmill.jobs.run")'),
        (upward, "batch/pack.py", 'import pkgutil\nX = pkgutil.resolve_name("embedmill.jobs.run:run")'),
        (upward, "batch/pack.py", 'import runpy\nrunpy.run_module("embedmill")'),
        (upward, "batch/pack.py", 'import sys\nX = sys.modules["embedmill.jobs.run"]'),
        (upward, "source/plan.py", 'run_child("embedmill.jobs.run", timeout_s=1)'),
        (upward, "source/plan.py", 'run_child(f"embedmill.jobs.{name}", timeout_s=1)'),
        (upward, "source/plan.py", 'FAR = "embedmill.engine.runners.host"\nWorker(FAR)'),
        (upward_in_engine, "engine/target.py", "from embedmill.engine.runners import start"),
        (upward_in_engine, "engine/target.py", "from embedmill import engine\nX = engine.runners.start"),
        (upward_in_engine, "engine/devices.py", 'run_child("embedmill.engine.runners.host", timeout_s=1)'),
        (upward_in_engine, "engine/__init__.py", "from embedmill.engine.engine import Engine"),
        (upward_in_engine, "engine/__init__.py", "from embedmill.engine.machine import cores"),
        (work_in_reports, "report/units.py", "from embedmill.sink import ledger"),
        (work_in_reports, "report/units.py", "if not TYPE_CHECKING:\n    from embedmill.sink import ledger"),
        (
            work_in_reports,
            "report/units.py",
            "if TYPE_CHECKING:\n    pass\nelse:\n    from embedmill.sink import ledger",
        ),
        (work_in_reports, "report/units.py", "from typing import Any"),
        (work_in_reports, "report/units.py", "import typing as t\nX: t.Any = 1"),
        (work_in_reports, "report/units.py", "from typing_extensions import Any"),
        (work_in_reports, "report/units.py", 'import typing\ndef f(x: "list[typing.Any]") -> None: ...'),
        (work_in_reports, "report/units.py", 'import typing\ndef f() -> list["typing.Any"]: ...'),
        (other_jobs, "jobs/plan.py", "from embedmill.jobs import bench"),
        (other_jobs, "jobs/plan.py", "from embedmill import jobs\nX = jobs.bench"),
        (other_jobs, "jobs/executors/local.py", "from embedmill.jobs.run import run"),
        (early_in_commands, "cli/models.py", "from embedmill.jobs import models"),
        (early_in_commands, "cli/models.py", "class A:\n    from embedmill.jobs import models"),
        (unnamed, "source/plan.py", "from . import survey"),
        (unnamed, "source/plan.py", "from ..sink import ledger"),
        (unnamed, "jobs/plan.py", "import embedmill.source"),
        (unnamed, "jobs/plan.py", "from numpy import *"),
    ],
)
def test_the_rule_catches(rule: Rule, file: str, text: str) -> None:
    assert planted(rule, file, text)


@pytest.mark.parametrize(
    ("rule", "file", "text"),
    [
        (upward, "sink/shard.py", 'from embedmill.base import home\nX = home.home_folder\nY = "embedmill.words"'),
        (work_in_reports, "report/units.py", "if TYPE_CHECKING:\n    from embedmill.sink import a\nX: a.B\n"),
        (early_in_commands, "cli/models.py", "async def f():\n    from embedmill.jobs import models\n    models.add()"),
    ],
)
def test_the_rule_allows(rule: Rule, file: str, text: str) -> None:
    assert planted(rule, file, text) == []


def test_the_house_has_files() -> None:
    assert {"jobs/run.py", "cli/main.py", "base/config.py", "source/__init__.py", "base/files/local.py"} <= set(FILES)


def test_the_root_holds_two_doors_and_the_rooms() -> None:
    assert {file for file in FILES if "/" not in file} == {"__init__.py", "__main__.py"}
    assert {file.split("/")[0] for file in FILES if "/" in file} <= LEVELS.keys()


def test_every_place_of_the_engine_has_a_floor() -> None:
    assert {place_in(file, 1) for file in FILES if file.startswith("engine/")} == ENGINE_LEVELS.keys()


def test_no_imports_run_in_a_circle() -> None:
    assert set(in_order(SOURCES)) >= {source.module for source in SOURCES}


def test_a_circle_is_caught() -> None:
    with pytest.raises(CycleError):
        in_order([*SOURCES, Source("base/errors.py", "from embedmill.base.home import home_folder")])


def in_order(sources: list[Source]) -> list[str]:
    """Return the modules in an order of import. Raises CycleError."""
    needs = {source.module: set(needed(source)) - {source.module} for source in sources}
    return list(TopologicalSorter(needs).static_order())


def needed(source: Source) -> Iterator[str]:
    """Yield the modules that are imported when a file is."""
    for name in house_names(source):
        if name.imports and isinstance(name.node, ast.ImportFrom) and not (name.lazy or name.for_types):
            yield name.dotted if is_module(name.dotted) else name.dotted.rpartition(".")[0]


@pytest.mark.parametrize("module", ["embedmill", "embedmill.cli.main"])
def test_start_up_is_quick_because_heavy_libraries_stay_out(module: str) -> None:
    heavy = ("numpy", "pyarrow", "onnxruntime", "onnx", "tokenizers", "tqdm", "huggingface_hub")
    assert loaded_by(module, heavy) == "[]"


def test_the_command_line_handles_signals_before_it_loads_libraries() -> None:
    assert loaded_by("embedmill.cli.entry", ("click", "msgspec", "json")) == "[]"


def test_a_run_does_not_load_what_only_a_bundle_or_a_bench_needs() -> None:
    assert loaded_by("embedmill.jobs.run", ("onnx", "huggingface_hub")) == "[]"


def loaded_by(module: str, names: tuple[str, ...]) -> str:
    """Import a module in a process of its own; return which of the names are loaded then."""
    program = f"import sys, {module}; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=HOUSE)
    return done.stdout.strip()
