"""A tuning as it is kept."""

from __future__ import annotations

from msgspec import structs

from embedmill.base.records import Packing
from embedmill.base.results import TrialFacts, Tuning

TRIAL = TrialFacts(
    precision="fp32",
    streams=2,
    threads=1,
    in_flight=1,
    budget_tokens=512,
    bucket=None,
    useful_tokens=1000,
    padded_tokens=1100,
    seconds=0.1,
    open_seconds=0.5,
    peak_bytes=200 << 20,
    predicted_peak_bytes=300 << 20,
    failure=None,
)
TUNING = Tuning(
    made="2026-11-22T10:00:00+00:00",
    holds_for={"provider": "cpu", "model": "tiny 0000", "lengths": "p50_8-p95_16-mean_11"},
    precision="fp32",
    streams=2,
    threads=1,
    in_flight=1,
    packing=Packing(budget_tokens=512),
    tokens_per_s=10_000.0,
    peak_bytes=200 << 20,
    ceiling_bytes=1 << 30,
    unproven=(),
    seconds=12.0,
    ended="settled",
    trials=[
        structs.replace(TRIAL, budget_tokens=256, useful_tokens=500),
        TRIAL,
        structs.replace(TRIAL, seconds=0.11),
        structs.replace(TRIAL, streams=1, threads=2),
        structs.replace(TRIAL, budget_tokens=8192, failure="out of memory <soon>"),
    ],
    verdict="faster",
    gain=1.21,
    gain_pairs=[1.21, 1.1, 1.3],
)
