"""Isolation of fatal rows in child processes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
from msgspec import Struct

from embedmill.base.config import RunConfig
from embedmill.base.errors import InputError, TokenizerFailed
from embedmill.base.home import temporary_folder
from embedmill.base.process.child import leave_no_trace, run_child
from embedmill.base.records import InputFile, SetAside, Shard
from embedmill.jobs.job import Job


class Task(Struct, frozen=True):
    """Work of the child: a shard, less rows already found."""

    config: RunConfig
    files: list[InputFile]
    shard: Shard
    set_aside: list[SetAside]


def fatal_rows(job: Job, shard: Shard) -> Iterator[list[SetAside]]:
    """Find fatal rows of a shard in child processes.

    What is found is to be added to `job.set_aside` before the next child. Raises InputError where a file cannot even
    be read.
    """
    with tempfile.TemporaryDirectory(dir=temporary_folder()) as folder:
        task = Path(folder) / "task.json"
        ended = True
        while ended:
            task.write_bytes(msgspec.json.encode(Task(job.config, job.files, shard, job.set_aside)))
            done = run_child("embedmill.jobs.executors.isolation", str(task), timeout_s=job.config.engine.timeout_s)
            found = [msgspec.json.decode(line, type=SetAside) for line in done.lines if line.startswith("{")]
            if ended := bool(done.words):
                kind, *place = _last_words(done.lines)
                if kind != "row":
                    _refuse(job.files, shard, done.lines, done.words)
                reason = f"reading or tokenising it ended the process: {done.words}"
                found.append(SetAside(file=int(place[0]), row=int(place[1]), reason=reason))
            if found:
                yield found


def main(path: str) -> None:
    """Tokenise each row of a task alone (child)."""
    # What is printed last is what ended the process.
    leave_no_trace()
    task = msgspec.json.decode(Path(path).read_bytes(), type=Task)
    job = Job(task.config, task.files)
    job.set_aside = task.set_aside
    with job.reader() as reader:
        for piece in task.shard.pieces:
            print("file", piece.file, flush=True)
            for block in reader.blocks(piece):
                for row, text in zip(block.rows, block.texts, strict=True):
                    print("row", piece.file, row, flush=True)
                    try:
                        job.tokenisation.tokenise([text])
                    except TokenizerFailed as error:
                        reason = f"the tokenizer fails on it: {error.__cause__}"
                        found = SetAside(file=piece.file, row=row, reason=reason)
                        # ASCII: what the child prints is of no locale.
                        print(json.dumps(msgspec.to_builtins(found)), flush=True)
                print("file", piece.file, flush=True)


def _last_words(lines: Sequence[str]) -> list[str]:
    return next((line.split() for line in reversed(lines) if line), [""])


def _refuse(files: Sequence[InputFile], shard: Shard, lines: Sequence[str], words: str) -> NoReturn:
    kind, *number = _last_words(lines)
    file = files[int(number[0]) if kind == "file" else shard.pieces[0].file]
    raise InputError(f"{file.path}: reading it ends the process ({words}); leave it out, or write it anew")
