"""Every module that the package imports has owners, and so have the powers in some of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.architecture.house import SOURCES, Rule, broken, planted
from tests.architecture.names import UNKNOWN, Name, Source

EVERYWHERE = ("",)
# Rule 7. A module or something in it, and who may use it: rooms and folders (with a slash), or files. The longest entry
# for a name holds; a module of which only parts are here is used in these parts only.
OWNERS: dict[str, tuple[str, ...]] = {
    # Computing, and types.
    "__future__": EVERYWHERE,
    "abc": EVERYWHERE,
    "builtins": EVERYWHERE,
    "collections": EVERYWHERE,
    "contextlib": EVERYWHERE,
    "copy": EVERYWHERE,
    "difflib": EVERYWHERE,
    "errno": EVERYWHERE,
    "fractions": EVERYWHERE,
    "functools": EVERYWHERE,
    "hashlib": EVERYWHERE,
    "heapq": EVERYWHERE,
    "itertools": EVERYWHERE,
    "json": EVERYWHERE,
    "math": EVERYWHERE,
    "msgspec": EVERYWHERE,
    "pathlib": EVERYWHERE,
    "re": EVERYWHERE,
    "statistics": EVERYWHERE,
    "struct": EVERYWHERE,
    "sys": EVERYWHERE,
    "textwrap": EVERYWHERE,
    "types": EVERYWHERE,
    "typing": EVERYWHERE,
    "uuid": EVERYWHERE,
    # Libraries.
    "onnxruntime": ("engine/runtime.py",),
    "onnx": ("model/",),
    "google.protobuf": ("model/",),
    "safetensors": ("model/",),
    "huggingface_hub": ("model/fetch.py",),
    "tokenizers": ("batch/",),
    "numpy": ("base/", "batch/", "engine/", "jobs/", "model/", "sink/", "source/", "tune/"),
    "pyarrow": ("base/", "sink/", "source/"),
    "click": ("cli/",),
    "tqdm": ("report/progress.py",),
    "filelock": ("sink/",),
    "platformdirs": ("base/home.py",),
    "psutil": ("engine/machine/",),
    "pynvml": ("engine/machine/memory/nvml.py",),
    # The network: each library in one file.
    "pyarrow.flight": ("engine/runners/flight.py",),
    "openai": ("engine/runners/cloud.py",),
    "ray": ("jobs/executors/ray.py",),
    "lancedb": ("index/lance.py",),
    "psycopg": ("index/pgvector.py",),
    "faiss": ("index/faiss.py",),
    "obstore": ("base/files/",),
    "fsspec": ("base/files/",),
    "pyarrow.fs": ("base/files/",),
    # The machine.
    "ctypes": ("engine/machine/", "base/files/names.py"),
    "platform": ("base/environment.py", "engine/machine/"),
    "sysconfig": ("engine/machine/",),
    "winreg": ("engine/machine/",),
    "resource": ("base/process/", "engine/machine/"),
    "msvcrt": ("base/process/",),
    # Processes and signals.
    "subprocess": ("base/process/", "engine/machine/processor.py"),
    "signal": ("base/process/", "base/signals.py", "cli/entry.py"),
    "os._exit": ("cli/entry.py", "engine/runners/host.py"),
    "os.dup": ("base/process/",),
    "os.dup2": ("base/process/", "base/streams.py"),
    "os.fdopen": ("base/process/",),
    "os.environ": ("base/", "cli/entry.py"),
    "os.execv": ("cli/entry.py",),
    "os.set_inheritable": ("base/streams.py",),
    "os.geteuid": ("base/home.py",),
    "os.getpid": ("engine/machine/",),
    "os.cpu_count": ("engine/machine/",),
    # Threads and the clock.
    "threading": ("base/", "engine/", "report/progress.py", "source/", "tune/"),
    "queue": ("base/",),
    "concurrent.futures.Future": ("engine/",),
    "concurrent.futures.TimeoutError": ("engine/",),
    "concurrent.futures.wait": ("engine/",),
    "concurrent.futures.ThreadPoolExecutor": ("engine/", "source/"),
    "time": ("base/", "engine/", "jobs/", "report/progress.py", "tune/"),
    "datetime": ("tune/",),
    # Files: renamed, linked and synced in one place.
    "os.O_DIRECTORY": ("base/files/local.py",),
    "os.O_RDONLY": ("base/files/local.py",),
    "os.O_NOFOLLOW": ("base/files/local.py",),
    "os.O_NONBLOCK": ("base/files/local.py",),
    "fcntl": ("base/files/local.py",),
    "os.close": ("base/files/local.py", "base/streams.py"),
    "os.fsync": ("base/files/local.py",),
    "os.link": ("base/files/local.py",),
    "os.name": ("base/", "cli/entry.py", "sink/folder.py"),
    "os.open": ("base/files/local.py", "base/streams.py"),
    "os.devnull": ("base/streams.py",),
    "os.O_RDWR": ("base/streams.py",),
    "os.fstat": ("base/files/local.py", "base/streams.py"),
    "os.replace": ("base/files/local.py",),
    "os.strerror": ("base/files/local.py",),
    "shutil.rmtree": ("base/files/local.py", "base/process/worker.py", "engine/sessions/compiled.py"),
    "shutil.copyfile": ("model/",),
    "tempfile": ("base/", "engine/", "jobs/", "tune/"),
    "os.DirEntry": ("source/",),
    "os.path": ("base/", "model/", "source/"),
    "os.PathLike": EVERYWHERE,
    "os.fspath": EVERYWHERE,
    "os.X_OK": ("base/home.py", "engine/machine/"),
    "os.scandir": ("source/",),
    "os.stat_result": ("source/",),
    "os.access": ("base/home.py", "engine/machine/"),
    "os.R_OK": ("base/home.py", "engine/machine/"),
    "os.W_OK": ("base/home.py", "engine/machine/"),
    "stat": ("base/home.py", "base/files/", "source/"),
    "glob": ("source/", "model/fetch.py", "jobs/models.py", "report/run.py"),
    "fnmatch": ("source/",),
    "io": ("base/streams.py", "source/"),
    "codecs": ("source/",),
    "csv": ("source/",),
    "decimal": ("source/",),
    "urllib.parse": ("source/partitions.py",),
    "bz2": ("source/compression.py",),
    "lzma": ("source/compression.py", "model/fetch.py"),
    "zlib": ("source/compression.py", "model/fetch.py"),
    "backports.zstd": ("source/compression.py",),
    "compression.zstd": ("source/compression.py",),
    "zipfile": ("model/fetch.py",),
    "tomllib": ("base/configfile.py",),
    # What is told, and to whom.
    "base64": ("report/",),
    "shlex": ("report/",),
    "markupsafe": ("report/",),
    "logging.getLogger": EVERYWHERE,
    "logging": ("base/log.py", "cli/main.py", "jobs/executors/building.py"),
    "builtins.print": ("report/progress.py", "jobs/executors/"),
    "sys.stdin": ("base/process/",),
    "sys.stdout": ("base/process/", "cli/", "engine/machine/adapters/child.py"),
    "sys.stderr": ("base/process/", "cli/", "report/progress.py"),
    "traceback": ("engine/runners/host.py",),
    # Code found by its name at run time: classes of the public face, plugin libraries that the catalogue names, an
    # optional driver library, modules whose docstrings are documents.
    "importlib.import_module": ("__init__.py", "engine/plugins.py", "engine/machine/memory/nvml.py", "jobs/doctor.py"),
    "importlib.util.find_spec": ("engine/plugins.py",),
    "importlib.metadata": ("base/environment.py",),
    "inspect": ("jobs/doctor.py",),
    "sys.modules": (),
    "builtins.__import__": (),
    "builtins.compile": (),
    "builtins.eval": (),
    "builtins.exec": (),
    # Methods of Path are seen, this is not needed.
    "builtins.open": (),
    # NumPy's files may be pickles.
    "numpy.load": (),
    "numpy.save": (),
    "numpy.savez": (),
}
# Methods give themselves away by their names, whatever the object.
NAMING = {"rename", "hardlink_to", "symlink_to"}
WRITING = {"mkdir", "open", "rmdir", "touch", "unlink", "write_bytes", "write_text"}


def unowned(source: Source) -> Iterator[str]:
    """What a file imports or uses of others than the package, and does not own."""
    return (
        source.place(name.node) for name in source.names if not (name.is_in("embedmill") or owns(source.file, name))
    )


def owns(file: str, name: Name) -> bool:
    """Return whether a file may use a name."""
    entries = [entry for entry in OWNERS if name.is_in(entry)]
    # `import os` is followed by what is used of it.
    parts = [owners for entry, owners in OWNERS.items() if entry.startswith(f"{name.dotted}.") and name.imports]
    allowed = [*parts, *([OWNERS[max(entries, key=len)]] if entries else [])]
    return name.dotted.startswith(UNKNOWN) or any(file.startswith(owners) for owners in allowed)


def naming(source: Source) -> Iterator[str]:
    """Methods that give a file its name, outside the owner of names."""
    for spot in source.spots if source.file != "base/files/local.py" else ():
        node = spot.node
        if isinstance(node, ast.Attribute) and node.attr in NAMING:
            yield source.place(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
            # str.replace takes two arguments, Path.replace one, structs.replace and its like keywords.
            words = [keyword.arg for keyword in node.keywords]
            if words == ([] if len(node.args) == 1 else ["target"]):
                yield source.place(node)


def files_in_reports(source: Source) -> Iterator[str]:
    """What `report/` opens or writes: it gives text, and others keep it."""
    for spot in source.spots if source.file.startswith("report/") else ():
        if isinstance(spot.node, ast.Attribute) and spot.node.attr in WRITING:
            yield source.place(spot.node)


def pickled(source: Source) -> Iterator[str]:
    """Calls that allow pickles."""
    for spot in source.spots:
        if isinstance(spot.node, ast.keyword) and spot.node.arg == "allow_pickle":
            yield source.place(spot.node.value)


RULES = [unowned, naming, files_in_reports, pickled]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    assert broken(rule) == []


def test_every_entry_is_used_or_kept_for_a_room_to_come() -> None:
    to_come = {"pyarrow.flight", "openai", "ray", "lancedb", "psycopg", "faiss", "obstore", "fsspec", "pyarrow.fs"}
    used = {entry for source in SOURCES for name in source.names for entry in OWNERS if name.is_in(entry)}
    assert {entry for entry, owners in OWNERS.items() if owners} - used == to_come


PLANTED = """
import subprocess | from subprocess import run | import os; os.system("a") | import os; os.popen("a")
import os; os.execv("a", []) | import os; os.spawnl(0, "a") | import os; os.fork() | from os import posix_spawn
import multiprocessing | import asyncio; asyncio.create_subprocess_exec
import concurrent.futures as c; c.ProcessPoolExecutor() | from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import process | import posix | import pty | import os; os.replace("a", "b")
import os as o; o.replace("a", "b") | import os; o = os; o.fsync(1) | from os import fsync
import os; move = os.rename; move("a", "b") | import os; getattr(os, "rename")("a", "b") | import os; os.sync()
import os; name = "rename"; getattr(os, name)("a", "b") | import shutil; shutil.move("a", "b") | import fcntl
import pickle | import _pickle | import dill | import cloudpickle | import joblib | import marshal | import shelve
import copyreg | import numpy; numpy.load("a") | f = numpy.save; import numpy | import numpy as np; np.save("a", [])
import urllib.request | import http.client | import socket | import ssl | import requests | import httpx
import aiohttp | import boto3 | import fsspec | import pyarrow as pa; pa.fs.S3FileSystem | from pyarrow import fs
from pyarrow.fs import S3FileSystem | import pyarrow; f = pyarrow.flight | import smtplib
import logging; logging.handlers | import logging.handlers | import onnxruntime
import importlib; importlib.import_module("onnxruntime") | import importlib; importlib.import_module(NAME)
X = __import__("onnxruntime") | exec("a") | eval("a") | run = exec; run("a") | import builtins; builtins.exec("a")
import runpy; runpy.run_module("a") | import pkgutil; pkgutil.resolve_name("a") | import sys; sys.modules["a"]
import sys; sys.modules | import ctypes | import cffi | import click | import dask | print("a") | open("a")
import sys; sys.stderr.write("a") | import warnings | import logging; logging.basicConfig() | import signal
"""


@pytest.mark.parametrize("text", [text.strip() for line in PLANTED.splitlines() for text in line.split("|") if text])
def test_a_power_without_its_owner_is_caught(text: str) -> None:
    assert planted(unowned, "sink/shard.py", text)


@pytest.mark.parametrize("text", ["import numpy", "import pyarrow", "import onnxruntime", "open('a')", "import io"])
def test_a_report_neither_computes_nor_opens(text: str) -> None:
    assert planted(unowned, "report/units.py", text)


@pytest.mark.parametrize(
    ("rule", "file", "text"),
    [
        (naming, "sink/shard.py", "Path('a').rename('b')"),
        (naming, "sink/shard.py", "Path('a').replace('b')"),
        (naming, "sink/shard.py", "Path('a').replace(target='b')"),
        (naming, "sink/shard.py", "Path.rename(a, b)"),
        (files_in_reports, "report/units.py", "Path('a').write_text('b')"),
        (files_in_reports, "report/units.py", "Path('a').open().read()"),
        (pickled, "sink/shard.py", "read('a', allow_pickle=True)"),
    ],
)
def test_a_method_is_caught(rule: Rule, file: str, text: str) -> None:
    assert planted(rule, file, text)


@pytest.mark.parametrize("text", ["'a'.replace('b', 'c')", "structs.replace(a, b=1)"])
def test_other_ways_to_replace_are_allowed(text: str) -> None:
    assert planted(naming, "sink/shard.py", text) == []
