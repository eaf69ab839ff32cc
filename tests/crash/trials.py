"""A small job for many trials, and what an undisturbed run makes of it; each trial is held to end with the same."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import numpy as np

from embedmill.sink.folder import read_entries
from embedmill.sink.verify import verify
from tests.crash.failpoints import AT_ONCE, Failpoints, at_once
from tests.support.jobs import (
    files_of,
    ids_of,
    make_config,
    make_rows,
    parts_of,
    quarantined_in,
    vectors_of,
    words_of,
    write_jsonl,
)

# One batch after the other with a fixed budget: every run computes the same bits.
FIXED = {"provider": "cpu", "tune": False, "budget_tokens": 256, "streams": 1, "threads": 1}
QUARANTINED = 7


class Trials:
    """The job: shards of ten rows, one row of which is quarantined. Every run is a fork of `failpoints`."""

    def __init__(self, folder: Path, model: Path, failpoints: Failpoints, *, shards: int) -> None:
        self.folder, self.failpoints, self.shards = folder, failpoints, shards
        self._model = model
        rows = make_rows(10 * shards)
        rows[QUARANTINED]["text"] = None
        self._source = write_jsonl(folder / "corpus.jsonl", rows)
        folder.mkdir(exist_ok=True)
        self.undisturbed = folder / "undisturbed"
        self.trace = folder / "undisturbed.trace"
        for _ in ("the first builds the bundle", "the second is as all others"):
            shutil.rmtree(self.undisturbed, ignore_errors=True)
            [ending] = failpoints.order(self.words(self.undisturbed), trace=str(self.trace))
            assert ending.code == 0
        self.points = ending.points
        self.life_s = statistics.median(at_once(self._life_s, range(3 * AT_ONCE)))
        self._parts, self._files = parts_of(self.undisturbed), files_of(self.undisturbed)
        self._ids, self._vectors = ids_of(self.undisturbed), vectors_of(self.undisturbed)
        assert self._ids == [row["id"] for row in rows if row["text"] is not None]
        assert verify(self.undisturbed).problems == []

    def _life_s(self, number: int) -> float:
        """Seconds of an undisturbed run that no one records, beside another as in the trials."""
        output = self.folder / f"timed {number}"
        [ending] = self.failpoints.order(self.words(output))
        assert ending.code == 0
        shutil.rmtree(output)
        return ending.seconds

    def words(self, output: Path) -> list[str]:
        """The command line."""
        tables = {"shard": {"rows": 10}, "rows": {"max_quarantined": 1}, "engine": FIXED}
        return [*words_of(make_config(self._model, self._source, output, **tables)), "--quiet"]

    def ends_equal(self, output: Path, place: str) -> None:
        """Finish a disturbed run: ids, order, counts, vectors and files are those of the undisturbed, byte by byte."""
        [ending] = self.failpoints.order(self.words(output), said=str(self.told(output)))
        assert ending.code == 0, f"{place}: {self.told(output).read_text('utf-8')}"
        self.is_equal(output, place)
        shutil.rmtree(output)

    def is_equal(self, output: Path, place: str) -> None:
        """The same, of a run that has ended. The ids and vectors are read where the files differ."""
        if (parts := parts_of(output)) != self._parts:
            assert ids_of(output) == self._ids, place
            np.testing.assert_array_equal(vectors_of(output), self._vectors, err_msg=place)
        assert parts == self._parts, place
        assert files_of(output) == self._files, place
        assert [row["id"] for row in quarantined_in(output)] == [f"row-{QUARANTINED}"], place
        assert verify(output).problems == [], place

    def told(self, output: Path) -> Path:
        """Where a run with an output puts its standard error, if it is told to."""
        return self.folder / f"{output.name} of {output.parent.name}.said"

    def is_refused(self, code: int, output: Path, place: str, *, error: str = "OutputError") -> None:
        """The run that put its standard error there ended as a user should see it: exit code 6 and one sentence."""
        said = self.told(output).read_text("utf-8")
        assert code == 6, f"{place}: exit code {code}\n{said}"
        [line] = said.splitlines()
        assert line.startswith(f"{error}: "), f"{place}: {line}"


def committed_are_whole(output: Path, place: str) -> int:
    """Every shard in the ledger is there, byte by byte; how many."""
    entries = list(read_entries(output))
    parts = parts_of(output)
    assert [entry.file for entry in entries if parts.get(entry.file) != entry.sha256] == [], place
    return len(entries)
