"""Progress of a run: a bar on terminals, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Self, TextIO

from tqdm import tqdm

from embedmill.base.streams import Console, one_line
from embedmill.report.units import duration, short

# Often enough for a person, seldom enough for the log of a scheduled job.
_LINE_EVERY_S = 10.0
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} rows [{elapsed}<{remaining}{postfix}]"


class Progress:
    """Thread-safe progress display; a context manager."""

    def __init__(
        self,
        *,
        total_rows: int,
        done_rows: int,
        stream: TextIO | None = None,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start at `done_rows`, committed earlier; `stream` None: standard error."""
        self._stream = Console(stream if stream is not None else sys.stderr)
        self._total = total_rows
        self._first = float(done_rows)
        self._rows = float(done_rows)
        self._tokens = 0
        self._lock = threading.Lock()
        self._clock = clock
        self._started = self._last_line_s = clock()
        self._quiet = quiet
        self._bar: tqdm[None] | None = None

    def __enter__(self) -> Self:
        if not self._quiet and self._stream.isatty():
            self._bar = tqdm(
                total=self._total,
                initial=int(self._first),
                desc="embedding",
                file=self._stream,
                bar_format=_BAR,
                dynamic_ncols=True,
                mininterval=0.2,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, rows: float, tokens: int) -> None:
        """Count embedded rows and tokens."""
        # Fractions of rows: the chunks of a document, or the repeats of a text, share one.
        with self._lock:
            self._rows += rows
            self._tokens += tokens
            self._show()

    def committed(self, rows: int, *, with_work: bool) -> None:
        """Count the rows of a committed shard."""
        # Batches have counted them already, unless the shard had nothing to embed.
        self.advance(0 if with_work else rows, 0)

    def say(self, line: str) -> None:
        """Print a line, above the bar if any."""
        if self._quiet:
            return
        line = one_line(line)
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def _show(self) -> None:
        now = self._clock()
        elapsed = max(now - self._started, 1e-9)
        rows_per_s, tokens_per_s = (self._rows - self._first) / elapsed, self._tokens / elapsed
        if self._bar is not None:
            self._bar.set_postfix_str(f"{rows_per_s:.0f} rows/s, {short(tokens_per_s)} tokens/s", refresh=False)
            # 1e-6: fractions of rows do not quite add up to whole ones.
            self._bar.update(min(int(self._rows + 1e-6), self._total) - self._bar.n)
        elif now - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = now
            left = (self._total - self._rows) / rows_per_s if rows_per_s else 0.0
            self.say(
                f"{int(self._rows)} of {self._total} rows ({self._rows / max(self._total, 1):.0%}),"
                f" {rows_per_s:.0f} rows/s, {short(tokens_per_s)} tokens/s, {duration(left)} left"
            )
