"""How a command hears that it should stop."""

from __future__ import annotations

import signal
from types import FrameType

from embedmill.base.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """The first SIGINT or SIGTERM ends the run in good order; later ones are not heard.

    What a handler raises may come back as something else: native code that runs Python while it loads
    turns it into an ImportError of its own. So the signal is kept here, and it explains any such end.
    """

    def __init__(self) -> None:
        self.heard: Stopped | None = None

    def listen(self) -> None:
        """Take the signals over from the interpreter."""
        for number in _SIGNALS:
            signal.signal(number, self._hear)

    def ignore(self) -> None:
        """From here on the exit code is settled."""
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self.ignore()
        name = signal.Signals(signum).name
        self.heard = Stopped(
            f"stopped by {name}; everything committed is kept, the same command goes on from there", signum=signum
        )
        raise self.heard
