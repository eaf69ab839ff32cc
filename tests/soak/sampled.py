"""A run in a process of its own, looked at through /proc while it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import Struct

# A program's name may hold anything; the fields of `stat` are counted after it. User and system time, in ticks.
_CPU_FIELDS = slice(11, 13)


class Sample(Struct, frozen=True, kw_only=True):
    """One look: seconds since the start, processor seconds since then, shards in the ledger, and what is held."""

    at_s: float
    cpu_s: float
    shards: int
    resident_bytes: int
    files: int
    threads: int
    children: int


class Sampled:
    """The command line as a process, and the samples taken of it; a context manager that ends what still runs."""

    def __init__(self, words: Sequence[str], output: Path, *, every_s: float) -> None:
        self._every_s = every_s
        self.samples: list[Sample] = []
        self._output = output
        self._began_s = time.monotonic()
        command = [sys.executable, "-m", "embedmill", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.kill()

    def watch(self, *, until: Callable[[Sample], bool] = lambda _: False, every_s: float | None = None) -> Sample:
        """Sample it until it ends, or until a sample is the one that is waited for; the last sample."""
        while self._process.poll() is None:
            if (sample := self._look()) is not None:
                self.samples.append(sample)
                if until(sample):
                    break
            time.sleep(every_s or self._every_s)
        return self.samples[-1]

    def ends_well(self) -> None:
        """It ends with exit code 0."""
        assert self._process.stderr is not None
        assert self._process.wait() == 0, self._process.stderr.read()

    def _look(self) -> Sample | None:
        """None where the process ended under the look."""
        place = Path(f"/proc/{self._process.pid}")
        try:
            tasks = list((place / "task").iterdir())
            used = (place / "stat").read_text().rpartition(")")[2].split()[_CPU_FIELDS]
            return Sample(
                at_s=time.monotonic() - self._began_s,
                cpu_s=sum(map(int, used)) / os.sysconf("SC_CLK_TCK"),
                shards=committed(self._output),
                resident_bytes=int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
                files=len(list((place / "fd").iterdir())),
                threads=len(tasks),
                children=sum(len((task / "children").read_text().split()) for task in tasks),
            )
        except OSError:
            return None


def committed(output: Path) -> int:
    """Shards in the ledger."""
    return len(list(output.glob("_ledger/[0-9]*.json")))


def growth(samples: Sequence[Sample], shard_rows: int) -> float:
    """Bytes of resident memory per row: the slope of the line through the samples (least squares)."""
    rows = [sample.shards * shard_rows for sample in samples]
    return float(np.polyfit(rows, [sample.resident_bytes for sample in samples], 1)[0])


def part(samples: Sequence[Sample], first: float, last: float, shards: int) -> list[Sample]:
    """The samples taken between two shares of all shards."""
    return [sample for sample in samples if first * shards <= sample.shards <= last * shards]


def cpu_per_shard(samples: Sequence[Sample]) -> float:
    """Processor seconds per shard between the first and the last sample."""
    return (samples[-1].cpu_s - samples[0].cpu_s) / (samples[-1].shards - samples[0].shards)
