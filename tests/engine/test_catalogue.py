"""The providers are found by name, and an unknown name is told the known ones."""

from __future__ import annotations

import pytest

from pipeline.engine.catalogue import PROVIDERS, choose_provider
from pipeline.errors import DeviceError


def test_every_provider_is_found_by_its_name() -> None:
    assert [choose_provider(provider.name) for provider in PROVIDERS] == list(PROVIDERS)


def test_auto_is_a_provider_of_the_catalogue() -> None:
    assert choose_provider("auto") in PROVIDERS


@pytest.mark.parametrize("name", ["cuda9", "CPU", ""])
def test_an_unknown_provider_lists_the_known_ones(name: str) -> None:
    with pytest.raises(DeviceError, match=rf"no provider '{name}'; `engine\.provider` .* can be auto, cpu"):
        choose_provider(name)
