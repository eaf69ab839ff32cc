"""The longest sequence of a graph is found by trial, without runs that cost too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedmill.base.errors import DeviceError, OutOfMemory
from embedmill.base.records import Batch, Tokens
from embedmill.engine.sessions.longest import LengthTrial, longest_sequence

IDS = np.array([2, 7, 3], np.int32)


class Graph:
    """A session whose graph takes `longest` tokens, in seconds that grow by the square of the length."""

    def __init__(self, longest: int, *, second_at: float = 1e9, error: type[DeviceError] = DeviceError) -> None:
        self.longest, self.second_at, self.error = longest, second_at, error
        self.busy_s, self.runs = 0.0, list[int]()

    def run(self, tokens: Tokens, batch: Batch) -> None:
        assert tokens.ids.tolist() == np.resize(IDS, batch.sequence).tolist()
        self.runs.append(batch.sequence)
        self.busy_s += (batch.sequence / self.second_at) ** 2
        if batch.sequence > self.longest:
            raise self.error("too long")


def trial_of(graph: Graph) -> LengthTrial:
    session: Any = graph
    return LengthTrial(session, IDS)


@given(takes=st.integers(0, 5000), most=st.integers(1, 5000))
def test_the_longest_length_that_is_taken_is_found(takes: int, most: int) -> None:
    assert longest_sequence(lambda length: length <= takes, most) == min(takes, most)


@pytest.mark.parametrize(("takes", "most"), [(512, 514), (512, 512), (8192, 8192), (40, 512)])
def test_few_lengths_are_tried(takes: int, most: int) -> None:
    tried: list[int] = []

    def runs(length: int) -> bool:
        tried.append(length)
        return length <= takes

    assert longest_sequence(runs, most) == takes
    assert len(tried) <= 20
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize("longest", [1, 33, 512])
def test_a_graphs_limit_is_found_by_running_it(longest: int) -> None:
    graph = Graph(longest)
    trial = trial_of(graph)
    assert longest_sequence(trial, 514) == longest
    assert trial.untried == 0


def test_lengths_that_would_take_too_long_are_left_out() -> None:
    """A second at 256 tokens: 4 at 512, 16 at 1024, more than a minute at 2048."""
    graph = Graph(10**6, second_at=256)
    trial = trial_of(graph)
    assert longest_sequence(trial, 8192) == 8192
    assert (max(graph.runs), trial.untried) == (1024, 2048)


def test_a_want_of_memory_is_no_limit_of_the_graph() -> None:
    graph = Graph(1000, error=OutOfMemory)
    trial = trial_of(graph)
    assert longest_sequence(trial, 4096) == 4096
    assert trial.untried == 1024


def test_memory_that_grows_by_the_square_is_foreseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 bytes of 4096 at 64 tokens: 2048 at 128 are just allowed, 8192 at 256 are not."""
    used = {"bytes": 0}

    class Probe:
        def read(self) -> Any:
            return type("Reading", (), {"used_bytes": used["bytes"], "free_bytes": 4096})

    monkeypatch.setattr("embedmill.engine.sessions.longest.HostProbe", Probe)
    graph = Graph(10**6)
    run: Callable[[Tokens, Batch], None] = graph.run

    def remember(tokens: Tokens, batch: Batch) -> None:
        used["bytes"] = batch.sequence**2 // 8
        run(tokens, batch)

    monkeypatch.setattr(graph, "run", remember)
    trial = trial_of(graph)
    assert longest_sequence(trial, 512) == 512
    assert (max(graph.runs), trial.untried) == (128, 256)
