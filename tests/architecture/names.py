"""Dotted names in a source file: what it imports and uses, through any alias."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

HOUSE = Path(__file__).parents[2] / "pipeline/embedmill"
# Calls that import the module that their first argument names.
IMPORTING = ("importlib.import_module", "builtins.__import__", "pkgutil.resolve_name", "runpy.run_module")
UNKNOWN = "?"


class Spot(NamedTuple):
    """Node, and whether it is inside a function, below TYPE_CHECKING or in an annotation."""

    node: ast.AST
    lazy: bool
    for_types: bool
    annotates: bool


class Name(NamedTuple):
    """Dotted name such as `os.replace`, or `?.replace` of an unknown object.

    imports     a statement or call that imports, or a text that is a module's name
    lazy        inside a function
    for_types   below TYPE_CHECKING, or used of what was imported there
    """

    dotted: str
    node: ast.AST
    imports: bool
    lazy: bool
    for_types: bool

    def is_in(self, parent: str) -> bool:
        """Return whether it is this name, or something in it."""
        return f"{self.dotted}.".startswith(f"{parent}.")


class Source:
    """A file of the package, by its path in there and its text."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.lines, self.tree = file, text.splitlines(), ast.parse(text)
        self.module = ".".join(["embedmill", *file.removesuffix(".py").removesuffix("/__init__").split("/")])
        self.spots = list(_spots(self.tree))
        # What the top-level names of the file were assigned.
        self.values: dict[str, ast.expr] = {}
        self._aliases: dict[str, tuple[str, bool]] = {}
        imports = [name for spot in self.spots for name in self._imports(spot)]
        for node in self.tree.body:
            self._bind(node)
        # Docstrings name no module to load, and `os` in `os.replace` is not a use of its own.
        self._parts = {id(part) for spot in self.spots if (part := _part(spot.node)) is not None}
        self.names = imports + [name for spot in self.spots for name in self._uses(spot)]

    def place(self, node: ast.AST) -> str:
        """Return `file:line code`."""
        return f"{self.file}:{getattr(node, 'lineno', 0)} {ast.unparse(node)[:100]}"

    def dotted(self, node: ast.AST) -> str:
        """Return the dotted name of an expression."""
        match node:
            case ast.Name(id=name):
                unbound = f"builtins.{name}" if hasattr(builtins, name) else UNKNOWN
                return self._aliases.get(name, (unbound, False))[0]
            case ast.Attribute(value=value, attr=attribute):
                return f"{self.dotted(value)}.{attribute}"
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr"), args=[value, ast.Constant(value=str(attribute)), *_]
            ):
                return f"{self.dotted(value)}.{attribute}"
            case ast.Call(func=called, args=[ast.Constant(value=str(module)), *_]) if self.dotted(called) in IMPORTING:
                return module.replace(":", ".")
            case ast.Subscript(value=value, slice=ast.Constant(value=str(module))):
                return module if self.dotted(value) == "sys.modules" else UNKNOWN
        return UNKNOWN

    def _imports(self, spot: Spot) -> Iterator[Name]:
        node, lazy, for_types, _ = spot
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                self._aliases[alias.asname or root] = (alias.name if alias.asname else root, for_types)
                yield Name(alias.name, node, True, lazy, for_types)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                dotted = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                self._aliases[alias.asname or alias.name] = (dotted, for_types)
                yield Name(dotted, node, True, lazy, for_types)

    def _bind(self, node: ast.stmt) -> None:
        """Bind a top-level name to its full one, or to what it stands for, as in `o = os`."""
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            value = self.dotted(node.value)
            for target in assigned(node):
                self.values[target] = node.value
                self._aliases.setdefault(target, (f"{self.module}.{target}" if UNKNOWN in value else value, False))

    def _uses(self, spot: Spot) -> Iterator[Name]:
        node, lazy, for_types, _ = spot
        if id(node) in self._parts and not isinstance(node, ast.Call | ast.Subscript):
            return
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        typed = for_types or (isinstance(root, ast.Name) and self._aliases.get(root.id, ("", False))[1])
        dotted = self.dotted(node)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and dotted != UNKNOWN:
            yield Name(dotted, node, False, lazy, typed)
        elif isinstance(node, ast.Call | ast.Subscript) and dotted != UNKNOWN:
            yield Name(dotted, node, True, lazy, typed)
        elif isinstance(node, ast.Constant) and str(node.value).startswith("embedmill."):
            # A module named as text, or the room in an f-string, is loaded by whoever gets it: often another process.
            named = str(node.value).rstrip(".")
            yield from [Name(named, node, True, lazy, for_types)] if is_module(named) else []


def is_module(name: str) -> bool:
    """Return whether a dotted name is a file or folder of the package."""
    path = HOUSE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    """Return the plain names that an assignment binds."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _part(node: ast.AST) -> ast.AST | None:
    """Return the part of a node that is no use of its own."""
    match node:
        case ast.Attribute(value=part) | ast.Expr(value=ast.Constant() as part):
            return part
        case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[part, ast.Constant(value=str()), *_]):
            return part
    return None


def _spots(node: ast.AST, lazy: bool = False, for_types: bool = False, annotates: bool = False) -> Iterator[Spot]:
    """Walk a tree, annotations in quotes included."""
    yield Spot(node, lazy, for_types, annotates)
    if annotates and isinstance(node, ast.Constant) and isinstance(node.value, str):
        with suppress(SyntaxError):
            yield from _spots(ast.parse(node.value, mode="eval").body, lazy, for_types, annotates)
    checks = isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
    lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                typed = for_types or (checks and field == "body")
                yield from _spots(child, lazy, typed, annotates or field in ("annotation", "returns"))
