"""Working ahead loses nothing, keeps the order, and ends when either side does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedmill.base.errors import InputError, Stopped
from embedmill.base.prefetch import Prefetch


def wait_until(condition: threading.Event) -> None:
    assert condition.wait(5), "it did not happen within 5 s"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.none() | st.integers()), st.integers(1, 4))
def test_all_items_come_in_their_order(items: list[int | None], depth: int) -> None:
    with Prefetch(items, depth=depth, name="test") as ahead:
        assert list(ahead) == items


def test_an_error_of_the_producer_surfaces_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise InputError("the third is bad")

    taken: list[int] = []
    with Prefetch(items(), depth=3, name="test") as ahead, pytest.raises(InputError, match="the third is bad"):
        taken.extend(ahead)
    assert taken == [1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), Stopped("stopped", signum=15)])
def test_even_an_error_that_is_no_exception_surfaces(error: BaseException) -> None:
    def items() -> Iterator[int]:
        raise error
        yield 1

    with Prefetch(items(), depth=1, name="test") as ahead, pytest.raises(type(error)):
        list(ahead)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_items_are_made_than_may_wait(depth: int) -> None:
    """One more is in the producer's hand, waiting for room."""
    made: list[int] = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if len(made) == depth + 1:
                full.set()
            yield number

    with Prefetch(items(), depth=depth, name="test"):
        wait_until(full)
        time.sleep(0.15)
        assert len(made) == depth + 1


def test_items_are_made_while_the_consumer_is_busy() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        second.set()
        yield 2

    with Prefetch(items(), depth=1, name="test") as ahead:
        for _ in ahead:
            wait_until(second)


def test_leaving_early_ends_the_thread() -> None:
    before = set(threading.enumerate())
    endless = iter(int, 1)
    with Prefetch(endless, depth=1, name="test") as ahead:
        for _ in ahead:
            break
    assert set(threading.enumerate()) == before


def test_an_error_of_the_consumer_ends_the_thread() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError), Prefetch(iter(int, 1), depth=1, name="test"):
        raise ZeroDivisionError
    assert set(threading.enumerate()) == before


def test_leaving_tells_what_the_producer_may_be_waiting_for() -> None:
    left = threading.Event()

    def items() -> Iterator[int]:
        left.wait(5)
        yield 1

    started = time.monotonic()
    with Prefetch(items(), depth=1, name="test", on_close=left.set):
        pass
    assert time.monotonic() - started < 2


def test_the_producer_can_see_that_the_consumer_has_left() -> None:
    with Prefetch([1], depth=1, name="test") as ahead:
        assert not ahead.closed
    assert ahead.closed


def test_closing_ends_the_iteration_of_another_thread() -> None:
    taken: list[int] = []
    first = threading.Event()

    def consume(ahead: Prefetch[int]) -> None:
        for item in ahead:
            taken.append(item)
            first.set()

    def items() -> Iterator[int]:
        yield 1
        time.sleep(0.2)
        yield 2

    with Prefetch(items(), depth=1, name="test") as ahead:
        consumer = threading.Thread(target=consume, args=(ahead,))
        consumer.start()
        wait_until(first)
        ahead.close()
        consumer.join(5)
    assert not consumer.is_alive()
    assert taken == [1]
