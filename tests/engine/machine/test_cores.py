"""Only the cores that this process may really use are counted."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from embedmill.engine.machine.cores import usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 16 cores and 32 hyper-threads, all of which this process may use."""
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 32 if logical else 16)
    monkeypatch.setattr(os, "cpu_count", lambda: 32)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: list(range(32)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, "utf-8")
    return root


def test_physical_cores_are_counted_and_hyper_threads_are_not(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 16


def test_the_affinity_mask_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda _: [0, 5, 7], raising=False)
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("400000 100000", 4), ("250000 100000", 3), ("50000 100000", 1), ("1000 100000", 1), ("max 100000", 16)],
)
def test_the_quota_of_cgroup_v2_is_honoured(tmp_path: Path, limit: str, expected: int) -> None:
    assert usable_cores(write(tmp_path, {"cpu.max": f"{limit}\n"})) == expected


@pytest.mark.parametrize(("quota", "expected"), [("400000", 4), ("250000", 3), ("-1", 16), ("6400000", 16)])
def test_the_quota_of_cgroup_v1_is_honoured(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"cpu/cpu.cfs_quota_us": f"{quota}\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert usable_cores(write(tmp_path, files)) == expected


@pytest.mark.parametrize("content", ["", "nonsense", "100000", "0 0", "a b"])
def test_an_unreadable_quota_is_no_limit(tmp_path: Path, content: str) -> None:
    assert usable_cores(write(tmp_path, {"cpu.max": content})) == 16


def test_a_system_that_cannot_say_has_one_core_at_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1
