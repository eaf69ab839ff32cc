"""What people are shown of a tuning."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from msgspec import structs

from embedmill.base.records import Bucket, Packing
from embedmill.report.tuning import trial_words, tuning_plots, tuning_section, tuning_summary, tunings_summary
from tests.support.tunings import TRIAL, TUNING


def test_the_pick_is_in_words() -> None:
    words = tuning_summary(structs.replace(TUNING, rates=[9_500.0]))
    assert "fp32, 2 x 1 threads, up to 512 padded tokens per batch: 10.0k tokens/s with 200.0 MiB of 1.0 GiB" in words
    assert "for texts of p50 8, p95 16, mean 11 tokens" in words
    assert "runs since then: 9.5k tokens/s" in words


def test_the_gain_and_its_spread_are_stated_everywhere() -> None:
    words = "1.21 times the default (3 pairs of runs: 1.10 to 1.30)"
    assert words in tuning_summary(TUNING)
    assert words in tunings_summary([TUNING])
    assert words in tuning_section(TUNING)


def test_where_nothing_gains_the_default_is_named_as_what_is_kept() -> None:
    kept = structs.replace(TUNING, verdict="no gain", gain=0.97, gain_pairs=[0.9, 0.97, 1.04])
    pairs = "the best found ran at 0.97 times, 3 pairs of runs: 0.90 to 1.04"
    assert f"no gain over the default: keeping the default ({pairs})" in tuning_summary(kept)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("default", "the default is the best found"),
        ("default failed", "not compared with the default, which cannot run"),
        ("not compared", "no time to compare the best found with the default: keeping the default"),
        ("", "not compared with the default"),
    ],
)
def test_without_pairs_the_reason_is_stated(verdict: str, words: str) -> None:
    assert words in tuning_summary(structs.replace(TUNING, verdict=verdict, gain=None, gain_pairs=[]))


def test_a_ladder_is_told_by_its_shapes() -> None:
    shapes = (Bucket(rows=64, sequence=32), Bucket(rows=8, sequence=256))
    ladder = structs.replace(TUNING, packing=Packing(budget_tokens=2048, buckets=shapes), streams=1, in_flight=4)
    assert "fp32, 4 in flight, batches of 64 x 32, 8 x 256 tokens" in tuning_summary(ladder)


def test_the_picture_shows_every_trial_the_ceiling_and_the_pick() -> None:
    rate, memory, order = tuning_plots(TUNING)
    assert [curve.name for curve in rate.curves] == ["fp32, 2 x 1 threads", "fp32, 1 x 2 threads"]
    assert [x for x, _ in rate.curves[0].points] == [256, 512]
    assert [x for x, _ in rate.marked] == [512]
    assert memory.level == (1024.0, "ceiling")
    assert sum(len(curve.points) for curve in order.curves) == 4
    assert order.failed == (5.0,)


def test_a_ceiling_far_away_is_not_drawn() -> None:
    assert tuning_plots(structs.replace(TUNING, ceiling_bytes=1 << 40))[1].level is None


def test_the_section_is_whole_and_escaped() -> None:
    section = tuning_section(TUNING)
    ElementTree.fromstring(f"<div>{section}</div>")
    assert "out of memory &lt;soon&gt;" in section
    assert section.count("<svg") == 3


def test_without_memory_there_are_two_plots() -> None:
    blind = [structs.replace(trial, peak_bytes=None, predicted_peak_bytes=None) for trial in TUNING.trials]
    tuning = structs.replace(TUNING, trials=blind, peak_bytes=None, ceiling_bytes=None)
    assert tuning_section(tuning).count("<svg") == 2
    assert "MiB" not in tuning_summary(tuning)


def test_no_tuning_is_no_section() -> None:
    assert tuning_section(None) == ""
    assert "embedmill tune" in tunings_summary([])


def test_a_trial_is_told_as_it_comes() -> None:
    assert trial_words(3, TRIAL) == "trial 3: fp32, 2 x 1 threads, 512 tokens: 10.0k tokens/s, 200.0 MiB"
    assert trial_words(5, TUNING.trials[-1]).endswith("8192 tokens: out of memory <soon>")
