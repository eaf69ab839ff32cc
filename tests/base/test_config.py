"""The config structs."""

from __future__ import annotations

import pytest

from embedmill.base.config import RunConfig


def test_a_config_cannot_be_changed_once_it_is_made() -> None:
    with pytest.raises(AttributeError):
        RunConfig().shard.rows = 5  # type: ignore[misc]  # that it is refused is the point
