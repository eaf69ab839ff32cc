"""A long run takes no more memory, files or time per row than a short one, and a resume of it begins at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest

from embedmill.base.config import MIB
from tests.conftest import Tell
from tests.soak.sampled import Sample, Sampled, committed, cpu_per_shard, growth, part
from tests.soak.trivial import write_corpus, write_trivial_model
from tests.support.jobs import embedmill

pytestmark = [pytest.mark.soak, pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")]

ROWS = int(os.environ.get("EMBEDMILL_SOAK_ROWS", "1000000"))
SHARD_ROWS, FEW_ROWS = 2048, 100
EVERY_S = ROWS / 1_000_000
# By design: a hash of every id, to find duplicates; and of every shard its plan and its entry, with three hashes.
ID_BYTES, SHARD_BYTES = 8, 1500
# Pools of memory grow in steps of some MiB, and not only at the beginning.
STEPS_BYTES = 8 * MIB
# Temporary file, part and folder are opened and closed all the time, and the memory watch reads files.
OPEN_AT_ONCE = 3
# Pools start a thread when there is first work for it.
LATE_THREADS = 2
# Seconds are the processor's: those of the clock are also the disk's, and of what else the machine does.
# A resume reads the entry and the ids of every committed part, in about a millisecond.
SHARD_OF_RESUME_S = 0.002
SLOWER = 1.3


class Job:
    """A corpus of ROWS rows, and the model of one operator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._corpus = write_corpus(folder / "corpus.jsonl", ROWS)
        self._model = write_trivial_model(folder / "model")

    def start(self, output: Path, shard_rows: int) -> Sampled:
        """A run, with a config file as anyone's."""
        config = self.folder / f"{output.name}.toml"
        config.write_text(
            f'model = "{self._model}"\ninput.paths = ["{self._corpus}"]\noutput.path = "{output}"\n'
            f'shard.rows = {shard_rows}\nengine = {{ provider = "cpu", tune = false }}\n'
        )
        return Sampled(["run", str(config), "--quiet"], output, every_s=EVERY_S)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("soak"))


@pytest.fixture(autouse=True)
def _home(empty_home: Path) -> None:
    """The model's bundle is built for this test."""


def test_memory_and_open_files_are_flat_over_a_long_run(job: Job, tell: Tell) -> None:
    output = job.folder / "long"
    with job.start(output, SHARD_ROWS) as run:
        last = run.watch()
        run.ends_well()
    assert_flat(run.samples, SHARD_ROWS)
    assert_whole(output)
    show(tell, run.samples, SHARD_ROWS, f"{ROWS / last.at_s:,.0f} rows/s")


def test_many_small_shards_take_no_longer_as_the_ledger_grows_and_a_resume_begins_at_once(job: Job, tell: Tell) -> None:
    output, shards = job.folder / "small shards", ROWS // FEW_ROWS
    with job.start(output, FEW_ROWS) as killed:
        fresh = killed.watch(until=lambda sample: sample.shards > 0, every_s=0.05)
        killed.watch(until=lambda sample: sample.shards > shards // 2)
    kept = committed(output)
    with job.start(output, FEW_ROWS) as resumed:
        begun = resumed.watch(until=lambda sample: sample.shards > kept, every_s=0.05)
        last = resumed.watch()
        resumed.ends_well()
    assert begun.cpu_s < fresh.cpu_s + SHARD_OF_RESUME_S * kept
    early = cpu_per_shard(part(killed.samples, 0.1, 0.5, shards))
    late = cpu_per_shard(part(resumed.samples, 0.7, 1, shards))
    assert late < SLOWER * early
    for run in (killed, resumed):
        assert_flat(run.samples, FEW_ROWS)
    assert_whole(output)
    said = (
        f"the first shard after {fresh.at_s:.1f} s, of a resume at {kept:,} after {begun.at_s:.1f} s"
        f" ({begun.cpu_s - fresh.cpu_s:.1f} s of processor more);"
        f" {early * 1000:.2f} ms of processor per shard early, {late * 1000:.2f} ms late;"
        f" {(last.shards - begun.shards) * FEW_ROWS / (last.at_s - begun.at_s):,.0f} rows/s"
    )
    show(tell, resumed.samples, FEW_ROWS, said)


def assert_flat(samples: Sequence[Sample], shard_rows: int) -> None:
    """What is held grows by no more than the design says, once a quarter of the run has warmed it up."""
    held = settled(samples)
    shards = held[-1].shards - held[0].shards
    by_design = shards * (shard_rows * ID_BYTES + SHARD_BYTES)
    assert growth(held, shard_rows) * shards * shard_rows < by_design + STEPS_BYTES
    files = [sample.files for sample in held]
    assert max(files) <= min(files) + OPEN_AT_ONCE
    threads = [sample.threads for sample in held]
    assert max(threads) <= min(threads) + LATE_THREADS
    assert {sample.children for sample in held} == {0}


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """The samples between the first quarter of a run's shards and its last commit."""
    shards = sorted({sample.shards for sample in samples} - {0})
    begin, end = shards[0] + (shards[-1] - shards[0]) / 4, shards[-1]
    return [sample for sample in samples if begin <= sample.shards < end]


def assert_whole(output: Path) -> None:
    """`verify` finds nothing, and each id is there once, in the input's order."""
    assert embedmill("verify", str(output)) == 0
    place = "row_number() OVER (ORDER BY filename, file_row_number) - 1"
    files = f"read_parquet('{output}/*.parquet', filename=true, file_row_number=true)"
    counts = "count(*), count(DISTINCT id), count(*) FILTER (id = 'row-' || place)"
    with duckdb.connect() as database:
        [found] = database.sql(f"SELECT {counts} FROM (SELECT id, {place} AS place FROM {files})").fetchall()
    assert found == (ROWS, ROWS, ROWS)


def show(tell: Tell, samples: Sequence[Sample], shard_rows: int, said: str) -> None:
    """The figures, at the end."""
    held = settled(samples)
    files, threads = [sample.files for sample in held], [sample.threads for sample in held]
    tell(
        f"{ROWS:,} rows in shards of {shard_rows}: {said}"
        f"\n  resident memory {held[0].resident_bytes / MIB:.0f} to {held[-1].resident_bytes / MIB:.0f} MiB,"
        f" {growth(held, shard_rows) * 100_000 / MIB:.2f} MiB more per 100,000 rows ({len(held)} samples)"
        f"\n  {min(files)} to {max(files)} open files, {min(threads)} to {max(threads)} threads, no children"
    )
