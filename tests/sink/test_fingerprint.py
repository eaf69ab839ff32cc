"""The fingerprint: options that a resume may change, differences."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from embedmill.base.config import RunConfig
from embedmill.base.configfile import load_config
from embedmill.base.records import InputFile
from embedmill.sink.fingerprint import fingerprint, first_difference
from tests.support.outputs import FREE

# Another value for every option there is: (the option, a value that is not its default).
OTHER_VALUES: dict[str, Any] = {
    "model": "another",
    "input.paths": ["elsewhere"],
    "input.format": "csv",
    "input.encoding": "cp1252",
    "input.csv_delimiter": ";",
    "input.csv_quote": "'",
    "input.csv_escape": "\\",
    "input.csv_header": False,
    "columns.text": "body",
    "columns.id": "key",
    "columns.carry": ["url", "year"],
    "columns.types": {"url": "int64"},
    "columns.carry_as": {"url": "link"},
    "columns.names": ["text", "url"],
    "rows.null_text": "skip",
    "rows.empty_text": "embed",
    "rows.wrong_type": "fail",
    "rows.malformed": "skip",
    "rows.too_long": "skip",
    "rows.duplicate_id": "keep",
    "rows.max_quarantined": 5,
    "limits.expansion": 5,
    "limits.id_bytes": 5,
    "limits.carried_bytes": 5,
    "limits.window_log": 31,
    "shard.rows": 100,
    "shard.text_bytes": 1000,
    "text.prompt": "query: ",
    "text.prompt_name": "query",
    "text.max_tokens": 64,
    "text.chunk_tokens": 100,
    "text.chunk_overlap": 10,
    "engine.provider": "cpu",
    "engine.device": "gpu",
    "engine.precision": "fp16",
    "engine.streams": 3,
    "engine.threads": 3,
    "engine.budget_tokens": 1024,
    "engine.memory_bytes": 1 << 30,
    "engine.memory_fraction": 0.5,
    "engine.timeout_s": 60.0,
    "engine.telemetry": True,
    "engine.tune": False,
    "output.path": "elsewhere",
    "output.compression": "none",
    "limits.record_bytes": 1000,
    "limits.text_bytes": 1000,
}


# What another option must say for a value to be allowed.
NEEDED: dict[str, dict[str, Any]] = {
    "columns.types": {"columns.carry": ["url"]},
    "columns.carry_as": {"columns.carry": ["url"]},
    "columns.names": {"input.csv_header": False},
    "text.chunk_overlap": {"text.chunk_tokens": 100},
}


NAMED = InputFile(path="/in/a.jsonl", name="a.jsonl", format="jsonl", compression="", size_bytes=10, digest="aa")


def config_of(values: dict[str, Any]) -> RunConfig:
    """A config from options spelt `table.key`."""
    return load_config(None, [f"{key}={_toml(value)}" for key, value in values.items()])


def input_file(name: str, size_bytes: int = 10, digest: str = "aa") -> InputFile:
    return msgspec.structs.replace(NAMED, name=name, size_bytes=size_bytes, digest=digest)


def test_another_value_is_given_here_for_every_option() -> None:
    assert set(OTHER_VALUES) == set(_options(RunConfig()))


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_the_fingerprint_changes_exactly_with_what_changes_the_output(key: str) -> None:
    needed = NEEDED.get(key, {})
    before = fingerprint(config_of(needed), "identity", [NAMED])
    after = fingerprint(config_of(needed | {key: OTHER_VALUES[key]}), "identity", [NAMED])
    difference = first_difference(before, after)
    if key in FREE:
        assert difference is None
    else:
        assert difference is not None
        assert difference[0] == key


def test_the_fingerprint_changes_with_the_model() -> None:
    before, after = fingerprint(RunConfig(), "one", [NAMED]), fingerprint(RunConfig(), "two", [NAMED])
    assert first_difference(before, after) == ("model.identity", "`model.identity` was 'one' and is now 'two'")


def test_the_fingerprint_does_not_change_with_the_place_of_the_input() -> None:
    moved = msgspec.structs.replace(NAMED, path="/elsewhere/a.jsonl")
    assert fingerprint(RunConfig(), "one", [NAMED]) == fingerprint(RunConfig(), "one", [moved])


def test_a_fingerprint_is_the_same_after_it_was_written_as_json() -> None:
    values = {key: value for key, value in OTHER_VALUES.items() if key != "text.prompt_name"}
    job = fingerprint(config_of(values), "identity", [NAMED, input_file("b.jsonl")])
    assert first_difference(json.loads(json.dumps(job)), job) is None


def test_a_changed_option_is_told_with_both_values() -> None:
    before = fingerprint(config_of({"shard.rows": 5}), "one", [NAMED])
    after = fingerprint(config_of({"shard.rows": 6}), "one", [NAMED])
    assert first_difference(before, after) == ("shard.rows", "`shard.rows` was 5 and is now 6")


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (["a", "b"], ["a"], "b is no longer there"),
        (["a"], ["a", "b"], "b is new"),
        (["a", "b"], ["b", "a"], "the order of the files has changed"),
        ([], ["a"], "a is new"),
    ],
    ids=str,
)
def test_files_that_came_went_or_changed_places_are_told(before: list[str], now: list[str], said: str) -> None:
    old = fingerprint(RunConfig(), "one", [input_file(name) for name in before])
    new = fingerprint(RunConfig(), "one", [input_file(name) for name in now])
    assert first_difference(old, new) == ("input.files", f"`input.files`: {said}")


@pytest.mark.parametrize(
    "changed", [input_file("b", size_bytes=11), input_file("b", digest="bb")], ids=["size", "digest"]
)
def test_a_changed_file_is_told(changed: InputFile) -> None:
    old = fingerprint(RunConfig(), "one", [input_file("a"), input_file("b")])
    difference = first_difference(old, fingerprint(RunConfig(), "one", [input_file("a"), changed]))
    assert difference is not None
    assert difference[1].startswith("`input.files`: b has changed")


def test_an_option_is_told_before_a_file() -> None:
    old = fingerprint(RunConfig(), "one", [input_file("a")])
    new = fingerprint(config_of({"text.max_tokens": 5}), "one", [])
    difference = first_difference(old, new)
    assert difference is not None
    assert difference[0] == "text.max_tokens"


def test_equal_fingerprints_have_no_difference() -> None:
    job = fingerprint(RunConfig(), "one", [NAMED])
    assert first_difference(job, job) is None


def _options(config: Struct, prefix: str = "") -> list[str]:
    """Every option as `table.key`."""
    names: list[str] = []
    for field in msgspec.structs.fields(type(config)):
        value = getattr(config, field.name)
        names += _options(value, f"{field.name}.") if isinstance(value, Struct) else [prefix + field.name]
    return names


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(entry)}" for key, entry in value.items()) + "}"
    return json.dumps(value)
