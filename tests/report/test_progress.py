"""Progress: a bar on terminals, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import threading

import pytest

from embedmill.report.progress import Progress


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_elsewhere_a_plain_line_tells_rows_speed_and_what_is_left(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=1000, done_rows=200, stream=stream, clock=clock) as shown:
        clock.now += 20
        shown.advance(400, 50_000)
    assert stream.getvalue() == "600 of 1000 rows (60%), 20 rows/s, 2.5k tokens/s, 20s left\n"


def test_plain_lines_are_seconds_apart(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=1000, done_rows=0, stream=stream, clock=clock) as shown:
        for _ in range(600):
            clock.now += 0.1
            shown.advance(1, 100)
    assert 4 <= len(stream.getvalue().splitlines()) <= 7


def test_on_a_terminal_there_is_a_bar() -> None:
    stream = Terminal()
    with Progress(total_rows=1000, done_rows=200, stream=stream) as shown:
        shown.advance(800, 50_000)
    assert "embedding:" in stream.getvalue()
    assert "1000/1000 rows" in stream.getvalue()


def test_a_bar_that_is_resumed_begins_where_the_last_one_ended() -> None:
    stream = Terminal()
    with Progress(total_rows=1000, done_rows=200, stream=stream):
        pass
    assert "200/1000 rows" in stream.getvalue()


def test_shares_of_rows_add_up_to_whole_ones() -> None:
    stream = Terminal()
    with Progress(total_rows=3, done_rows=0, stream=stream) as shown:
        for _ in range(30):
            shown.advance(0.1, 1)
    assert "3/3 rows" in stream.getvalue()


def test_a_shard_without_work_counts_when_it_is_committed(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=100, done_rows=0, stream=stream, clock=clock) as shown:
        shown.committed(40, with_work=True)
        clock.now += 60
        shown.committed(50, with_work=False)
    assert stream.getvalue().startswith("50 of 100 rows (50%)")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_a_line_of_news_is_shown(stream: io.StringIO) -> None:
    with Progress(total_rows=10, done_rows=0, stream=stream) as shown:
        shown.say("embedding 10 rows")
    assert "embedding 10 rows\n" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_nothing_is_shown_where_quiet_was_asked(clock: Clock, stream: io.StringIO) -> None:
    with Progress(total_rows=10, done_rows=0, stream=stream, quiet=True, clock=clock) as shown:
        shown.say("embedding 10 rows")
        clock.now += 60
        shown.advance(5, 100)
    assert stream.getvalue() == ""


def test_several_threads_may_count_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=8000, done_rows=0, stream=stream, clock=clock) as shown:

        def count() -> None:
            for _ in range(1000):
                shown.advance(1, 1)

        threads = [threading.Thread(target=count) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.now += 60
        shown.advance(0, 0)
    assert stream.getvalue().startswith("8000 of 8000 rows (100%)")
