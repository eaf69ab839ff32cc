"""Small jobs for whole runs: a corpus, a config, a run in this process or in one of its own, and what it wrote."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.base.config import RunConfig
from embedmill.base.configfile import parse_config
from embedmill.base.records import FloatArray
from embedmill.cli import main
from embedmill.jobs.embed import Embedder
from embedmill.model.build import build_bundle
from embedmill.sink.folder import read_entries
from embedmill.sink.ledger import Ledger
from embedmill.tune.reference import add_reference
from tests.support.tiny_model import WORDS

Row = Mapping[str, Any]
MANY = {"rows": {"max_quarantined": 1000}}


def tiny_bundle(model: Path) -> Path:
    """The bundle of the tiny model in `model`, built once beside it; a folder that `model = ` takes."""
    folder = model.parent / f"{model.name}-bundle"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=model.parent) as room:
            whole = Path(room) / folder.name
            whole.mkdir()
            add_reference(build_bundle(model, whole, name="tiny", origin="tests"))
            whole.rename(folder)
    return folder


def make_rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with an id and a text of 1 to 12 words, no two texts alike."""
    draw = random.Random(seed)
    return [
        {"id": f"row-{number}", "text": " ".join([*draw.choices(WORDS, k=draw.randint(0, 11)), str(number)])}
        for number in range(count)
    ]


def write_jsonl(path: Path, rows: Iterable[Row]) -> Path:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def make_config(model: Path, paths: Sequence[Path] | Path, output: Path, **tables: Any) -> RunConfig:
    """A job with the tiny model; `tables` are config tables, as `shard={"rows": 10}`."""
    listed = [paths] if isinstance(paths, Path) else paths
    values: dict[str, Any] = {"model": str(tiny_bundle(model)), **tables}
    values["input"] = {"paths": [str(path) for path in listed], **tables.get("input", {})}
    values["output"] = {"path": str(output), **tables.get("output", {})}
    return parse_config(values, place="the test")


def words_of(config: RunConfig) -> list[str]:
    """The command line that makes the same config: `run --set KEY=VALUE ...`, defaults left out."""
    default = _flat(RunConfig())
    given = {key: value for key, value in _flat(config).items() if value != default[key]}
    return ["run", *(word for key, value in given.items() for word in ("--set", f"{key}={json.dumps(value)}"))]


def _flat(config: RunConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in msgspec.to_builtins(config).items():
        flat |= {f"{key}.{name}": leaf for name, leaf in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def embedmill(*words: str | Path) -> int:
    """The exit code of the command line, run in this process; its signal handlers are taken back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return main.main([str(word) for word in words])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(words: Sequence[str | Path]) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "embedmill", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], *, timeout_s: float = 60) -> tuple[int, str, str]:
    """Its exit code, standard output and standard error."""
    with process:
        output, errors = process.communicate(timeout=timeout_s)
    return process.returncode, output, errors


def read_output(folder: Path) -> pa.Table:
    """The rows of all committed parts, in order."""
    return pa.concat_tables(
        pq.read_table(folder / entry.file, page_checksum_verification=True) for entry in read_entries(folder)
    )


def ids_of(folder: Path) -> list[str]:
    """The ids of an output, in order."""
    ids: list[str] = read_output(folder).column("id").to_pylist()
    return ids


def vectors_of(folder: Path) -> FloatArray:
    """The vectors of an output, in order, float32 [rows, dim]."""
    column = read_output(folder).column("embedding")
    vectors: FloatArray = column.combine_chunks().flatten().to_numpy().reshape(-1, column.type.list_size)
    return vectors


def parts_of(folder: Path) -> dict[str, str]:
    """The sha256 of every Parquet file of an output, in the ledger or not."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.parquet"))}


def files_of(folder: Path) -> list[str]:
    """Every file and folder below an output."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def quarantined_in(folder: Path) -> list[dict[str, Any]]:
    """The rows set aside, in order."""
    files = sorted((folder / "quarantine").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def assert_close(found: FloatArray, expected: FloatArray) -> None:
    """Vectors are equal but for rounding in another batch."""
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def texts_of(rows: list[dict[str, Any]]) -> list[str]:
    """The texts of rows."""
    return [row["text"] for row in rows]


def embedded(model: Path, texts: list[str]) -> FloatArray:
    """The vectors of texts, float32 [texts, dim], without a run."""
    with Embedder(str(tiny_bundle(model))) as embedder:
        return embedder.embed(texts)


def stop_at_commit(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The user interrupts the run when `number` shards are committed."""
    commit = Ledger.commit

    def interrupted(ledger: Ledger, *arguments: Any) -> Any:
        if len(ledger.entries) == number:
            raise KeyboardInterrupt
        return commit(ledger, *arguments)

    monkeypatch.setattr(Ledger, "commit", interrupted)
