"""Stop signals, raised at checkpoints."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# A wait of the main thread holds a signal up for so long at most.
SLICE_S = 0.2
# SIGHUP is the end of a terminal or a session; SIGBREAK is that, and Ctrl-Break (Windows).
STOP_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if name in signal.Signals.__members__
)
_pending: StopSignals | None = None


class StopSignals:
    """Signal handlers that note one signal and raise later ones."""

    # What a handler raises may land between acquiring and releasing something (a file, a lock, a process), which then
    # leaks: the first signal waits for a `checkpoint`. A later one may come because none is reached any more. Python's
    # asyncio.Runner treats SIGINT in the same way.

    def __init__(self, error: Callable[[signal.Signals], BaseException], *numbers: signal.Signals) -> None:
        """Install the handlers; `error` makes the exception of a signal."""
        self.noted: BaseException | None = None
        # Set where the exit code is settled: from there on signals do nothing.
        self.settled = False
        self._error = error
        for number in numbers:
            # `nohup` has a command ignore the end of the terminal.
            if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        global _pending
        if self.settled:
            return
        error = self._error(signal.Signals(signum))
        if self.noted is not None:
            # Raised once: a checkpoint of the cleanup that follows must not raise again.
            _pending = None
            raise error
        self.noted, _pending = error, self


def checkpoint() -> None:
    """Raise the noted signal, once and in the main thread."""
    global _pending
    if _pending is not None and threading.get_ident() == threading.main_thread().ident:
        stop, _pending = _pending, None
        if stop.noted is not None and not stop.settled:
            raise stop.noted


def slices(timeout_s: float) -> Iterator[float]:
    """Cut a wait into short ones, in seconds, between checkpoints."""
    end_s = time.monotonic() + timeout_s
    checkpoint()
    while (left_s := end_s - time.monotonic()) > 0:
        yield min(left_s, SLICE_S)
        checkpoint()


@contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt at checkpoints and as the block ends."""
    # Only the main thread may set handlers, and one that is not Python's own belongs to somebody else.
    in_main = threading.get_ident() == threading.main_thread().ident
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    StopSignals(lambda _: KeyboardInterrupt(), signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        checkpoint()
