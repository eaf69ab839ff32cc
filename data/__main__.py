"""Builds the sample corpus: the docstrings of the Python standard library that runs this."""

from __future__ import annotations

import argparse
import ast
import gzip
import inspect
import json
import sysconfig
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

NAME = "stdlib-docs"
LEAST_DOCUMENTS = 3000
# Not part of what the library documents, or left out by some distributions of Python.
_LEFT_OUT = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "distutils", "site-packages", "dist-packages", "ensurepip"}
)
_KINDS = {ast.Module: "module", ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "function"}

Row = dict[str, str]


def documents(stdlib: Path) -> Iterator[Row]:
    """Every docstring below `stdlib` by module name: id, text, module, kind. Nothing is imported."""
    seen: Counter[str] = Counter()
    for module, path in sorted(_modules(stdlib)):
        for name, kind, text in _docstrings(path, module):
            seen[name] += 1
            identifier = name if seen[name] == 1 else f"{name}#{seen[name]}"
            yield {"id": identifier, "text": text, "module": module, "kind": kind}


def _modules(stdlib: Path) -> Iterator[tuple[str, Path]]:
    for path in stdlib.rglob("*.py"):
        parts = path.relative_to(stdlib).with_suffix("").parts
        if _LEFT_OUT.isdisjoint(parts) and all(part.isidentifier() for part in parts):
            yield ".".join(parts).removesuffix(".__init__"), path


def _docstrings(path: Path, module: str) -> Iterator[tuple[str, str, str]]:
    """(dotted name, kind, text) of a module and of everything documented in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escape sequences in the library's own source
        tree = ast.parse(path.read_bytes(), filename=str(path))
    todo: list[tuple[str, ast.AST]] = [(module, tree)]
    while todo:
        name, node = todo.pop()
        kind = _KINDS.get(type(node))
        if kind is not None and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = inspect.cleandoc(ast.get_docstring(node, clean=False) or "")
            if text.strip():
                yield name, kind, text
        for child in reversed(list(ast.iter_child_nodes(node))):
            todo.append((f"{name}.{child.name}" if hasattr(child, "name") and type(child) in _KINDS else name, child))


def write(rows: list[Row], folder: Path) -> tuple[Path, Path]:
    """Write the corpus as Parquet and as gzipped JSONL; the same rows give the same bytes."""
    parquet, jsonl = folder / f"{NAME}.parquet", folder / f"{NAME}.jsonl.gz"
    folder.mkdir(parents=True, exist_ok=True)
    with jsonl.open("wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    pq.write_table(pa.Table.from_pylist(rows), parquet, compression="zstd")
    return parquet, jsonl


def main() -> None:
    """Build the corpus beside this file, or in --folder."""
    parser = argparse.ArgumentParser(prog="python -m data", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent, help="where to write (default: data/)")
    folder: Path = parser.parse_args().folder
    rows = list(documents(Path(sysconfig.get_path("stdlib"))))
    if len(rows) < LEAST_DOCUMENTS:
        raise SystemExit(
            f"only {len(rows)} docstrings found in {sysconfig.get_path('stdlib')}, {LEAST_DOCUMENTS} are expected;"
            " install Python with the sources of its standard library"
        )
    for path in write(rows, folder):
        print(f"{path}: {len(rows)} documents")


if __name__ == "__main__":
    main()
