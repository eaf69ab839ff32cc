"""A device's matrix peak: the best of several sizes, without a size that would take too long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import embedmill.engine.sessions.matrix_peak as module
from embedmill.base.config import TextTable
from embedmill.base.errors import DeviceError
from embedmill.engine.sessions.matrix_peak import matrix_peak
from embedmill.engine.sessions.options import SessionPlan
from embedmill.model.bundle import open_bundle
from embedmill.model.matrix_peak import peak_flops, write_peak
from tests.support.jobs import tiny_bundle
from tests.support.works import model, target_of


class Clock:
    """Time passes only where a session computes."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Sessions that take a size's seconds, and ten more the first time."""
    stands_in = Clock()

    class Slow:
        def __init__(self, plan: SessionPlan, *_: Any, **__: Any) -> None:
            self.seconds, self.late = float(plan.graph), 10.0

        def compute(self, inputs: dict[str, Any], what: str) -> None:
            stands_in.now += self.seconds + self.late
            self.late = 0.0

    monkeypatch.setattr(module, "Session", Slow)
    monkeypatch.setattr(module, "time", stands_in)
    return stands_in


def measured(seconds: dict[int, float], flops: int = 1000) -> tuple[float, list[int]]:
    """The peak, and the sizes that were measured."""
    asked: list[int] = []

    def graph_of(size: int) -> Path:
        asked.append(size)
        return Path(str(seconds[size]))

    return matrix_peak(target_of(), model(), seconds, graph_of, lambda size: flops * size), asked


def test_it_is_the_best_size_without_the_first_run(clock: Clock) -> None:
    found, asked = measured({1: 0.05, 2: 0.01, 3: 0.06})
    assert found == pytest.approx(2 * 1000 / 0.01)
    assert asked == [1, 2, 3]


def test_a_size_that_would_take_too_long_is_left_out(clock: Clock) -> None:
    assert measured({1: 0.01, 2: 0.2, 3: 1.6})[1] == [1, 2]


def test_the_cpu_computes_real_products(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEASURED_S", 0.0)
    known = open_bundle(tiny_bundle(tiny_model)).model(TextTable())
    found = matrix_peak(target_of(), known, [16, 128], lambda size: write_peak(tmp_path, size, half=False), peak_flops)
    assert 1e7 < found < 1e14


def test_a_graph_that_is_not_taken_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    known = open_bundle(tiny_bundle(tiny_model)).model(TextTable())
    with pytest.raises(DeviceError, match="cannot run"):
        matrix_peak(target_of(), known, [16], lambda _: tmp_path / "absent.onnx", peak_flops)
