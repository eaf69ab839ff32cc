"""What a tuner may choose among."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from embedmill.base.errors import ConfigError
from embedmill.base.records import Bucket

Session: TypeAlias = tuple[str, int, Bucket | None]


class Mode(Struct, frozen=True, kw_only=True):
    """All knobs but the size of a batch.

    streams       batches that compute side by side on one session
    threads       threads inside each
    in_flight     batches handed to each stream ahead of their results
    floor_bytes   the most that the smallest batch can need in this mode, by what is known before anything
                  ran: weights twice (as read and as laid out for the device) and the runtime itself, say
    """

    precision: str
    streams: int
    threads: int
    floor_bytes: int
    in_flight: int = 1

    @property
    def lanes(self) -> int:
        """Batches that hold memory at the same time."""
        return self.streams * self.in_flight


class Space(Struct, frozen=True, kw_only=True):
    """Modes, the preferred first, and sizes: budgets (padded tokens per batch) where any shape can run,
    else fixed buckets. All modes meet all sizes."""

    modes: tuple[Mode, ...]
    budgets_tokens: tuple[int, ...] = ()
    buckets: tuple[Bucket, ...] = ()


class Knobs(Struct, frozen=True, kw_only=True):
    """One point of a space: a mode and a size. `bucket` is None where any shape of `budget_tokens` runs."""

    mode: Mode
    budget_tokens: int
    bucket: Bucket | None = None

    @property
    def session(self) -> Session:
        """Knobs of the same session run on it without another being opened: precision, threads, bucket."""
        return self.mode.precision, self.mode.threads, self.bucket


def powers_of_two(least: int, most: int) -> tuple[int, ...]:
    """Those from `least` to `most`, both rounded down to one; budgets and rows are chosen among them."""
    return tuple(1 << shift for shift in range(least.bit_length() - 1, most.bit_length()))


def ladder_buckets(sequences: tuple[int, ...], *, longest: int, most_rows: int, most_tokens: int) -> tuple[Bucket, ...]:
    """Every bucket a ladder may be made of: rows in powers of two for each sequence, the greatest `longest`.

    Raises ConfigError where `longest` exceeds `most_tokens`.
    """
    if longest > most_tokens:
        raise ConfigError(f"a text of {longest} tokens does not fit into a batch of {most_tokens} padded tokens")
    heights = [*sorted(sequence for sequence in set(sequences) if sequence < longest), longest]
    return tuple(
        Bucket(rows=rows, sequence=height)
        for height in heights
        for rows in powers_of_two(1, min(most_rows, most_tokens // height))
    )
