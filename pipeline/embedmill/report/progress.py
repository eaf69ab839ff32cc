"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import Self, TextIO

from tqdm import tqdm

from embedmill.report.units import duration, short

_LINE_EVERY_S = 10.0
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} rows [{elapsed}<{remaining}{postfix}]"


class Progress:
    """Rows and tokens as they are embedded; a context manager, safe to call from several threads."""

    def __init__(self, *, total_rows: int, done_rows: int, stream: TextIO | None = None, quiet: bool = False) -> None:
        """`done_rows` of `total_rows` were committed by an earlier run. `stream` is standard error by default."""
        self._stream = stream if stream is not None else sys.stderr
        self._total = total_rows
        self._first = float(done_rows)
        self._rows = float(done_rows)
        self._tokens = 0
        self._lock = threading.Lock()
        self._started = self._said = time.monotonic()
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
        """Count what was embedded; a share of a row where documents are chunked or repeated."""
        with self._lock:
            self._rows += rows
            self._tokens += tokens
            self._show()

    def arrived(self, rows: int, *, with_work: bool) -> None:
        """A shard is committed; its rows were counted batch by batch, unless it had nothing to embed."""
        self.advance(0 if with_work else rows, 0)

    def say(self, line: str) -> None:
        """One line of news, above the bar."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        else:
            print(line, file=self._stream, flush=True)

    def _show(self) -> None:
        now = time.monotonic()
        elapsed = max(now - self._started, 1e-9)
        rows_per_s, tokens_per_s = (self._rows - self._first) / elapsed, self._tokens / elapsed
        if self._bar is not None:
            self._bar.set_postfix_str(f"{rows_per_s:.0f} rows/s, {short(tokens_per_s)} tokens/s", refresh=False)
            self._bar.update(min(int(self._rows + 1e-6), self._total) - self._bar.n)
        elif now - self._said >= _LINE_EVERY_S:
            self._said = now
            left = (self._total - self._rows) / rows_per_s if rows_per_s else 0.0
            self.say(
                f"{int(self._rows)} of {self._total} rows ({self._rows / max(self._total, 1):.0%}),"
                f" {rows_per_s:.0f} rows/s, {short(tokens_per_s)} tokens/s, {duration(left)} left"
            )
