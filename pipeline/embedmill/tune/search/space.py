"""Points of a tuning: modes, budgets and fixed shapes."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from embedmill.base.errors import ConfigError
from embedmill.base.records import Bucket, Packing

SessionKey: TypeAlias = tuple[str, int, Bucket | None]


class Mode(Struct, frozen=True, kw_only=True):
    """Every setting except the size of a batch.

    streams       batches that compute side by side on one session
    threads       threads inside each
    in_flight     batches handed to each stream ahead of their results
    floor_bytes   upper bound for the smallest batch before anything ran: weights, scratch memory, runtime
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
    """Modes combined with either budgets or buckets.

    modes             the first one is the catalogue's default
    budgets_tokens    padded tokens per batch, where any shape runs
    buckets           fixed shapes, elsewhere
    default           the catalogue's packing, which a pick has to beat
    """

    modes: tuple[Mode, ...]
    default: Packing
    budgets_tokens: tuple[int, ...] = ()
    buckets: tuple[Bucket, ...] = ()


class Knobs(Struct, frozen=True, kw_only=True):
    """One point of a space; without `bucket` any shape runs."""

    mode: Mode
    budget_tokens: int
    bucket: Bucket | None = None

    @property
    def session(self) -> SessionKey:
        """Key of the session: precision, threads and bucket."""
        return self.mode.precision, self.mode.threads, self.bucket


def knobs_of(mode: Mode, packing: Packing) -> list[Knobs]:
    """Return the points that a packing is made of."""
    ladder = [Knobs(mode=mode, budget_tokens=one.rows * one.sequence, bucket=one) for one in packing.buckets]
    return ladder or [Knobs(mode=mode, budget_tokens=packing.budget_tokens)]


def powers_of_two(least: int, most: int) -> tuple[int, ...]:
    """Return powers of two between two numbers, both rounded down."""
    return tuple(1 << shift for shift in range(least.bit_length() - 1, most.bit_length()))


def ladder_buckets(sequences: tuple[int, ...], *, longest: int, most_rows: int, most_tokens: int) -> tuple[Bucket, ...]:
    """Return every bucket that a ladder may contain.

    Rows are powers of two; the greatest sequence is `longest`. Raises ConfigError where it exceeds `most_tokens`.
    """
    if longest > most_tokens:
        raise ConfigError(f"a text of {longest} tokens does not fit into a batch of {most_tokens} padded tokens")
    heights = [*sorted(sequence for sequence in set(sequences) if sequence < longest), longest]
    return tuple(
        Bucket(rows=rows, sequence=height)
        for height in heights
        for rows in powers_of_two(1, min(most_rows, most_tokens // height))
    )
