"""Every format that a config may name is one module, found by its name or by the ending of a file."""

from __future__ import annotations

import typing

from embedmill.base.config import InputTable
from embedmill.source.formats import FORMATS


def test_the_formats_of_a_config_are_those_of_the_table() -> None:
    hint = typing.get_type_hints(InputTable)["format"]
    assert set(typing.get_args(hint)) == {"auto", *FORMATS}


def test_an_ending_belongs_to_one_format() -> None:
    endings = [ending for format in FORMATS.values() for ending in format.ENDINGS]
    assert len(set(endings)) == len(endings)
    assert all(ending.startswith(".") and ending == ending.lower() for ending in endings)
