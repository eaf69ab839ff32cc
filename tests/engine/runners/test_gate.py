"""Batches pass side by side; who wants to be alone is."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from embedmill.engine.runners.gate import SharedLock


def test_many_pass_at_the_same_time() -> None:
    gate, both = SharedLock(), threading.Barrier(2)

    def passing() -> None:
        with gate.shared():
            both.wait(5)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: passing(), range(2)))


def test_no_one_is_beside_who_is_alone() -> None:
    gate, inside, draw = SharedLock(), [0, 0], threading.Lock()
    seen: list[tuple[int, int]] = []

    def visit(number: int) -> None:
        alone = number % 5 == 0
        with gate.exclusive() if alone else gate.shared():
            with draw:
                inside[alone] += 1
            time.sleep(0.001)
            with draw:
                seen.append((inside[0], inside[1]))
                inside[alone] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(visit, range(60)))
    assert all((shared == 0) if alone else True for shared, alone in seen)
    assert max(alone for _, alone in seen) == 1
    assert max(shared for shared, _ in seen) > 1


def test_who_waits_to_be_alone_is_not_kept_waiting_by_those_who_come_later() -> None:
    gate, order = SharedLock(), list[str]()

    def take(name: str) -> None:
        with gate.exclusive() if name == "alone" else gate.shared():
            order.append(name)

    first, later = threading.Thread(target=take, args=["alone"]), threading.Thread(target=take, args=["later"])
    with ExitStack() as stack:
        stack.enter_context(gate.shared())
        first.start()
        while not gate._waiting_writers:
            time.sleep(0.001)
        later.start()
        time.sleep(0.02)
        assert order == []
    first.join(5)
    later.join(5)
    assert order == ["alone", "later"]
