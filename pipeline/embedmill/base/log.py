"""Log that stops no job."""

from __future__ import annotations

import contextlib
import logging


class Log(logging.Logger):
    """Logger with handlers that may fail."""

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Call the handlers; drop what a closed stream cannot take."""
        # The standard library prints a handler's error to standard error, and raises where that is closed.
        with contextlib.suppress(OSError, ValueError):
            super().callHandlers(record)


def settle() -> None:
    """Make the package's logger one of this class."""
    # Somebody may hold it already.
    logging.getLogger("embedmill").__class__ = Log
