"""What a tuner may choose: all that the provider takes and the user leaves open."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.records import Bucket
from embedmill.engine.catalogue import PROVIDERS
from embedmill.engine.catalogue.entry import GraphChoice, Provider
from embedmill.engine.target import packing_for
from embedmill.tune.space import default_trial, is_open, space_of
from tests.support.works import CPU, ladder_of, model, provider_of, target_of

BOTH = {
    "fp32": GraphChoice(graph="fused", floor=0.99999),
    "fp16": GraphChoice(graph="fused-fp16", floor=0.999),
}
MODEL = model(graphs=["fused", "fused-fp16", "unfused", "unfused-fp16"], max_tokens=32)
LADDER = provider_of(shapes=ladder_of(8, 16, budget_tokens=64, most_rows=8), precisions=BOTH, runs="adapter")


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedmill.tune.space.usable_cores", lambda: 4)


def test_the_cpu_is_split_into_streams_and_threads_in_every_way() -> None:
    space = space_of(target_of(CPU), MODEL, EngineTable())
    assert [(mode.streams, mode.threads) for mode in space.modes] == [(4, 1), (2, 2), (1, 4)]
    assert space.budgets_tokens == (128, 256, 512, 1024, 2048, 4096, 8192)
    assert space.buckets == ()


@pytest.mark.parametrize(
    ("engine", "modes"),
    [
        (EngineTable(streams=3), [(3, 1)]),
        (EngineTable(streams=2, threads=1), [(2, 1)]),
        (EngineTable(threads=2), [(4, 2), (2, 2), (1, 2)]),
    ],
)
def test_what_the_user_set_is_not_chosen(engine: EngineTable, modes: list[tuple[int, int]]) -> None:
    space = space_of(target_of(CPU), MODEL, engine)
    assert [(mode.streams, mode.threads) for mode in space.modes] == modes


def test_a_budget_that_the_user_set_is_the_only_one() -> None:
    assert space_of(target_of(CPU), MODEL, EngineTable(budget_tokens=300)).budgets_tokens == (300,)
    fixed = space_of(target_of(LADDER), MODEL, EngineTable(budget_tokens=64))
    assert fixed.buckets == packing_for(LADDER, MODEL, EngineTable(budget_tokens=64)).buckets


def test_fixed_shapes_are_a_ladder_up_to_the_longest_text() -> None:
    space = space_of(target_of(LADDER), MODEL, EngineTable())
    assert {bucket.sequence for bucket in space.buckets} == {8, 16, 32}
    assert {bucket.rows for bucket in space.buckets if bucket.sequence == 8} == {1, 2, 4, 8}
    assert {(mode.precision, mode.in_flight) for mode in space.modes} == {
        ("fp32", 2),
        ("fp32", 4),
        ("fp16", 2),
        ("fp16", 4),
    }


def test_precisions_are_those_that_the_user_and_the_model_allow() -> None:
    asked = space_of(target_of(LADDER), MODEL, EngineTable(precision="fp32"))
    assert {mode.precision for mode in asked.modes} == {"fp32"}
    poor = space_of(target_of(LADDER), structs.replace(MODEL, graphs={"fused": MODEL.graphs["fused"]}), EngineTable())
    assert {mode.precision for mode in poor.modes} == {"fp32"}


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_every_provider_leaves_something_open(provider: Provider) -> None:
    target = target_of(provider, next(iter(provider.precisions)))
    assert is_open(space_of(target, structs.replace(MODEL, max_tokens=256), EngineTable()))


def test_one_point_is_no_choice() -> None:
    assert not is_open(space_of(target_of(CPU), MODEL, EngineTable(budget_tokens=64, streams=2)))


class TestDefaultTrial:
    def test_any_shape_runs_texts_of_all_lengths(self) -> None:
        space = space_of(target_of(CPU), MODEL, EngineTable())
        lengths = np.arange(1, 3001) % 32 + 1
        trial = default_trial(space, lengths)
        assert 0.5 * 16_384 < trial.padded_tokens < 2 * 16_384
        assert trial.useful_tokens == sum(lengths[batch.rows].sum() for batch in trial.batches)
        sequences = [batch.sequence for batch in trial.batches]
        assert min(sequences) < 6
        assert max(sequences) > 26

    def test_a_ladder_runs_the_bucket_that_takes_the_most_tokens(self) -> None:
        space = space_of(target_of(LADDER), MODEL, EngineTable())
        trial = default_trial(space, np.array([30, 3, 9, 5, 8, *[7] * 24]))
        assert trial.knobs.bucket == Bucket(rows=8, sequence=8)
        assert trial.knobs.bucket in space.default.buckets
        assert {(batch.size, batch.sequence) for batch in trial.batches} == {(8, 8)}


def test_the_default_is_what_the_catalogue_says() -> None:
    for provider in (CPU, LADDER):
        space = space_of(target_of(provider), MODEL, EngineTable())
        assert space.default == packing_for(provider, MODEL, EngineTable())
        assert set(space.default.buckets) <= set(space.buckets)
        assert space.modes[0].streams == (4 if provider is CPU else 1)
