"""A run tells how far it is: with a bar on a terminal, with plain lines elsewhere, not at all if asked so."""

from __future__ import annotations

import io
import threading

import pytest

from embedmill.report.progress import Progress
from embedmill.report.units import duration, short, size


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr("embedmill.report.progress.time.monotonic", stopped)
    return stopped


def test_elsewhere_a_plain_line_tells_rows_speed_and_what_is_left(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=1000, done_rows=200, stream=stream) as shown:
        clock.now += 20
        shown.advance(400, 50_000)
    assert stream.getvalue() == "600 of 1000 rows (60%), 20 rows/s, 2.5k tokens/s, 20s left\n"


def test_plain_lines_do_not_come_thick_and_fast(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=1000, done_rows=0, stream=stream) as shown:
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


def test_a_shard_without_work_counts_when_it_arrives(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=100, done_rows=0, stream=stream) as shown:
        shown.arrived(40, with_work=True)
        clock.now += 60
        shown.arrived(50, with_work=False)
    assert stream.getvalue().startswith("50 of 100 rows (50%)")


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_a_line_of_news_is_shown(stream: io.StringIO) -> None:
    with Progress(total_rows=10, done_rows=0, stream=stream) as shown:
        shown.say("embedding 10 rows")
    assert "embedding 10 rows\n" in stream.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_nothing_is_shown_where_quiet_was_asked(clock: Clock, stream: io.StringIO) -> None:
    with Progress(total_rows=10, done_rows=0, stream=stream, quiet=True) as shown:
        shown.say("embedding 10 rows")
        clock.now += 60
        shown.advance(5, 100)
    assert stream.getvalue() == ""


def test_several_threads_may_count_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(total_rows=8000, done_rows=0, stream=stream) as shown:

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


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0"), (999, "999"), (12_345, "12.3k"), (5e6, "5.0M"), (7.25e9, "7.2G")]
)
def test_a_number_is_shown_short(number: float, words: str) -> None:
    assert short(number) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (3 << 30, "3.0 GiB")],
)
def test_a_size_is_shown_in_binary_units(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0.0s"), (9.94, "9.9s"), (42.4, "42s"), (83, "1m23s"), (3600, "1h00m"), (7385, "2h03m")]
)
def test_a_duration_is_shown_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words
