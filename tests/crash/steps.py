"""The steps by which a file gets into an output, by name, found in the calls that a run made."""

from __future__ import annotations

from pathlib import Path

from tests.crash.watch import Call

# A file is created, written, synced and given its name; its folder is synced; its temporary name goes.
ITEM_STEPS = ("tmp created", "half written", "tmp written", "tmp fsynced", "renamed", "folder synced", "tmp removed")
_POINTS = {"write": 3}


def items_of(shards: int) -> list[str]:
    """The files of the first, a middle and the last shard, and what frames them."""
    ordinals = (0, shards // 2, shards - 1)
    parts = [name for ordinal in ordinals for name in (f"part-{ordinal:05d}.parquet", f"_ledger/{ordinal:05d}.json")]
    return ["_ledger/job.json", "quarantine/part-00000.jsonl", *parts, "_report.html", "_manifest.json"]


def points_of(calls: list[Call]) -> dict[tuple[str, str], int]:
    """(file, step) -> the point at which a run is killed right after that step."""
    starts = [0]
    for call in calls:
        starts.append(starts[-1] + _POINTS.get(call.name, 2))
    points: dict[tuple[str, str], int] = {}
    for at, call in enumerate(calls):
        if call.name not in ("replace", "link"):
            continue
        source, target = call.paths
        item = _item(Path(target))
        of_source = [number for number in range(at) if calls[number].paths[0] == source]
        created, *written, synced = of_source
        folder = next(number for number in range(at, len(calls)) if calls[number].name == "fsync")
        gone = folder + 1
        assert [calls[number].name for number in of_source] == ["create", *["write"] * len(written), "fsync"], item
        done = {"tmp created": created, "tmp written": written[-1], "tmp fsynced": synced, "renamed": at}
        done |= {"folder synced": folder, "tmp removed": gone}
        points |= {(item, step): starts[number + 1] - 1 for step, number in done.items()}
        points[item, "half written"] = starts[written[-1]] + 1
    return points


def _item(path: Path) -> str:
    return f"{path.parent.name}/{path.name}" if path.parent.name in ("_ledger", "quarantine") else path.name
