"""An input that changes while it is read: what is returned is of the digest, or nothing is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from embedmill.base.errors import InputError
from embedmill.source.reader import Reader
from tests.support.corpora import Corpus, cut
from tests.support.systems import WINDOWS

ROWS = 3000
NAMES = ["a.jsonl", "a.csv", "a.jsonl.gz", "a.parquet"]


def write(corpus: Corpus, name: str, text: str) -> Path:
    ids, texts = [str(number) for number in range(ROWS)], [f"{text} {number}" for number in range(ROWS)]
    if name.endswith("parquet"):
        return corpus.write_table(name, {"id": ids, "text": texts}, row_group_size=500, compression="none")
    if name.endswith("csv"):
        return corpus.write(name, "id,text\n" + "".join(f"{id},{text}\n" for id, text in zip(ids, texts, strict=True)))
    return corpus.write(name, "".join(f'{{"id":"{i}","text":"{t}"}}\n' for i, t in zip(ids, texts, strict=True)))


def in_the_middle(
    action: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, before: Callable[[], Any] = lambda: None
) -> None:
    """Do something once, before and after a piece of a shard is read."""
    blocks = Reader.blocks
    done: list[Any] = []

    def both(reader: Reader, piece: Any) -> Any:
        if not done:
            before()
        yield from blocks(reader, piece)
        if not done:
            done.append(action())

    monkeypatch.setattr(Reader, "blocks", both)


def kept_times(path: Path, action: Callable[[], Any]) -> Callable[[], None]:
    def both() -> None:
        status = path.stat()
        action()
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    return both


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("restored", [False, True])
@pytest.mark.parametrize("times", ["new times", "old times"])
def test_other_content_of_the_same_size_is_never_returned(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, name: str, restored: bool, times: str
) -> None:
    if WINDOWS and times == "old times":
        pytest.skip("there is no time of the entry's change")
    path = write(corpus, name, "mine")
    job, good = corpus.job(), path.read_bytes()
    shards = cut(job.spans(), [1000, 2000])
    other = write(corpus, f"other-{name}", "evil").read_bytes()
    if len(other) != len(good):
        pytest.skip("compressed to another size")

    def rewrite() -> None:
        path.write_bytes(other)

    def restore() -> None:
        path.write_bytes(good)

    change, back = (
        (rewrite, restore) if times == "new times" else (kept_times(path, rewrite), kept_times(path, restore))
    )
    with job.reader() as reader:
        first = reader.read(shards[0])
        in_the_middle(back if restored else lambda: None, monkeypatch, before=change)
        if restored:
            assert reader.read(shards[1]).texts == [f"mine {number}" for number in range(1000, 2000)]
        else:
            with pytest.raises(InputError, match="changed since the run was planned; start again"):
                reader.read(shards[1])
    assert first.texts == [f"mine {number}" for number in range(1000)]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_touched_or_linked_is_read_on(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = write(corpus, name, "mine")
    job = corpus.job()
    shards = cut(job.spans(), [1000, 2000])
    in_the_middle(lambda: os.link(path, corpus.folder / "backup"), monkeypatch)
    with job.reader() as reader:
        found = [reader.read(shard) for shard in shards]
        path.touch()
    assert [id for shard in found for id in shard.ids] == [str(number) for number in range(ROWS)]
    assert [row for shard in found for row in shard.rejected] == []


@pytest.mark.parametrize("name", NAMES)
def test_files_that_are_touched_before_they_are_opened_are_read(corpus: Corpus, name: str) -> None:
    write(corpus, f"a/{name}", "mine")
    path = write(corpus, f"b/{name}", "its")
    job = corpus.job(rows={"duplicate_id": "keep"})
    shards = cut(job.spans(), [ROWS])
    with job.reader() as reader:
        reader.read(shards[0])
        path.touch()
        os.link(path, corpus.folder / "backup")
        assert reader.read(shards[1]).texts == [f"its {number}" for number in range(ROWS)]


def test_a_file_that_is_touched_all_the_time_ends_the_run(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(corpus, "a.jsonl", "mine")
    job = corpus.job()
    (shard,) = cut(job.spans(), [])
    blocks = Reader.blocks

    def touched(reader: Reader, piece: Any) -> Any:
        yield from blocks(reader, piece)
        path.touch()

    monkeypatch.setattr(Reader, "blocks", touched)
    with job.reader() as reader, pytest.raises(InputError, match="changed since the run was planned"):
        reader.read(shard)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_during_the_survey_is_an_error(corpus: Corpus, name: str) -> None:
    path = write(corpus, name, "mine")
    job, good = corpus.job(), path.read_bytes()
    path.write_bytes(good)
    with pytest.raises(InputError, match="changed since the run was planned"):
        job.spans()
