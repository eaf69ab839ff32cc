"""What the fuzzers begin with holds what they are to find out about all else."""

from __future__ import annotations

import pytest

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize(("target", "seed"), [(target, seed) for target, seeds in SEEDS.items() for seed in seeds])
def test_a_seed_is_read_or_refused_as_promised(target: str, seed: str) -> None:
    TARGETS[target](SEEDS[target][seed])


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()
