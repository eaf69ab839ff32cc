"""Streams against threads, and batch budgets, on real documents: what the CPU engine's defaults rest on.

Every setting embeds the same documents, in turn, round by round, so that a drift of the machine hits
all alike; the ratio is taken round by round against the first setting and its median is quoted.
"""

from __future__ import annotations

import argparse
import statistics
import sysconfig
import time
from pathlib import Path

from data.__main__ import documents
from embedmill.base.config import EngineTable
from embedmill.engine.machine.cores import usable_cores
from embedmill.jobs.embed import Embedder


def settings(cores: int) -> dict[str, EngineTable]:
    """The defaults first, then what they are compared with."""
    found = {"streams = cores (default)": EngineTable()}
    if cores > 1:
        found["one session, threads = cores"] = EngineTable(streams=1, threads=cores)
        found["one stream, one thread"] = EngineTable(streams=1, threads=1)
    for budget in (128, 256, 1024, 4096):
        found[f"budget_tokens = {budget}"] = EngineTable(budget_tokens=budget)
    return found


def main() -> None:
    """Print documents per second and the paired ratio of each setting."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = list(documents(Path(sysconfig.get_path("stdlib"))))
    texts = [row["text"] for row in rows[:: max(1, len(rows) // options.documents)]][: options.documents]
    embedders = {name: Embedder(engine=engine) for name, engine in settings(usable_cores()).items()}
    seconds: dict[str, list[float]] = {name: [] for name in embedders}
    for embedder in embedders.values():
        embedder.embed(texts[:64])
    for _ in range(options.rounds):
        for name, embedder in embedders.items():
            started = time.perf_counter()
            embedder.embed(texts)
            seconds[name].append(time.perf_counter() - started)
    first = next(iter(seconds.values()))
    print(f"{len(texts)} documents, {options.rounds} rounds, {usable_cores()} cores; medians")
    for name, taken in seconds.items():
        ratio = statistics.median(base / own for base, own in zip(first, taken, strict=True))
        print(f"{name:32} {len(texts) / statistics.median(taken):8.1f} documents/s  {ratio:5.2f} of the default")


if __name__ == "__main__":
    main()
