"""A signal is noted where it lands and raised at a checkpoint; a second one is raised at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

import embedmill
from embedmill.base.errors import Stopped
from embedmill.base.prefetch import Prefetch
from embedmill.base.process.child import run_child
from embedmill.base.signals import STOP_SIGNALS, StopSignals, checkpoint, keyboard_interrupts, slices
from embedmill.engine.runners.client import HostClient
from embedmill.jobs import run as run_job
from tests.base.process.test_worker import children

ALL = (*STOP_SIGNALS, *([] if os.name == "nt" else [signal.SIGALRM]))


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own handlers, and afterwards those that pytest has."""
    before = {number: signal.getsignal(number) for number in ALL}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def stop_signals(*numbers: signal.Signals) -> StopSignals:
    """Handlers like the command line's."""
    return StopSignals(lambda signum: Stopped(signum.name, signum=signum), *(numbers or STOP_SIGNALS))


@pytest.mark.parametrize("signum", STOP_SIGNALS)
def test_a_signal_is_raised_at_the_next_checkpoint_and_only_there(signum: signal.Signals) -> None:
    stop = stop_signals()
    checkpoint()
    signal.raise_signal(signum)
    assert str(stop.noted) == signum.name
    with pytest.raises(Stopped, match=signum.name):
        checkpoint()
    checkpoint()


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_the_end_of_a_terminal_is_ignored_where_nohup_says_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = stop_signals()
    signal.raise_signal(signal.SIGHUP)
    assert stop.noted is None
    checkpoint()


def test_a_second_signal_is_raised_where_it_lands() -> None:
    stop = stop_signals()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(Stopped, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    assert str(stop.noted) == "SIGINT"
    checkpoint()


def test_signals_do_nothing_once_the_exit_code_is_settled() -> None:
    stop = stop_signals()
    signal.raise_signal(signal.SIGINT)
    stop.settled = True
    signal.raise_signal(signal.SIGTERM)
    checkpoint()


def test_a_checkpoint_of_another_thread_leaves_the_signal_to_the_main_thread() -> None:
    stop_signals()
    signal.raise_signal(signal.SIGTERM)
    thread = threading.Thread(target=checkpoint)
    thread.start()
    thread.join()
    with pytest.raises(Stopped):
        checkpoint()


def test_an_interrupt_of_a_library_call_waits_for_a_checkpoint() -> None:
    @keyboard_interrupts()
    def call() -> None:
        signal.raise_signal(signal.SIGINT)
        done.append("acquired")
        checkpoint()
        done.append("never")

    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        call()
    assert done == ["acquired"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_of_a_library_call_is_raised_at_its_end_at_the_latest() -> None:
    @keyboard_interrupts()
    def call(error: str) -> None:
        signal.raise_signal(signal.SIGINT)
        if error:
            raise OSError(error)

    for error in ("", "a child that the terminal interrupted too"):
        with pytest.raises(KeyboardInterrupt):
            call(error)
    checkpoint()


def test_a_library_call_inside_a_command_leaves_signals_to_the_command() -> None:
    stop = stop_signals()
    with keyboard_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert isinstance(stop.noted, Stopped)
    with pytest.raises(Stopped):
        checkpoint()


def test_a_library_call_leaves_the_handler_of_its_program_in_place() -> None:
    met: list[int] = []
    signal.signal(signal.SIGINT, lambda signum, _: met.append(signum))
    with keyboard_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert met == [signal.SIGINT]


def test_a_library_call_in_another_thread_touches_no_handler() -> None:
    before: list[object] = []

    def call() -> None:
        with keyboard_interrupts():
            before.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert before == [signal.default_int_handler]


def test_the_calls_of_the_library_raise_an_interrupt_at_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_job, "run", lambda *_, **__: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        embedmill.run(embedmill.RunConfig())


def test_a_wait_is_cut_into_slices_that_fill_it() -> None:
    assert list(slices(0)) == []
    began = time.monotonic()
    for seconds in slices(0.5):
        time.sleep(seconds)
    assert 0.5 <= time.monotonic() - began < 2


def wait_for_a_child() -> None:
    run_child("tests.engine.machine.adapters.children", timeout_s=60)


def wait_for_a_host() -> None:
    with HostClient() as host:
        host.reply(Future(), 60)


def wait_for_an_item() -> None:
    over = threading.Event()
    with Prefetch(iter(over.wait, True), depth=1, name="test", on_close=over.set) as ahead:
        list(ahead)


@pytest.mark.skipif(os.name == "nt", reason="POSIX timers")
@pytest.mark.parametrize("wait", [wait_for_a_child, wait_for_a_host, wait_for_an_item])
def test_a_wait_for_a_minute_ends_at_a_signal_and_leaves_no_child(
    monkeypatch: pytest.MonkeyPatch, wait: Callable[[], None]
) -> None:
    monkeypatch.setenv("EMBEDMILL_TEST_CHILD", "hang")
    stop_signals(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    began = time.monotonic()
    with pytest.raises(Stopped):
        wait()
    assert time.monotonic() - began < 5
    assert children() == []
