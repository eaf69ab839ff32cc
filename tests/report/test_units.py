"""Numbers are formatted with units."""

from __future__ import annotations

import pytest

from embedmill.report.units import duration, short, size


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
