"""What is fuzzed: functions that take any bytes, and raise where something that is promised does not hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

from embedmill.base.config import RunConfig
from embedmill.base.configfile import load_config, parse_config
from embedmill.base.errors import ConfigError
from embedmill.base.records import InputFile
from embedmill.source.columns import ResolvedColumns, text_carried
from embedmill.source.formats.boundaries import LineCutter
from embedmill.source.formats.jsonl import JsonParser, Layout

CONFIG = parse_config(
    {"columns": {"carry": ["n", "s"], "types": {"n": "int64"}}, "input": {"paths": ["a"]}}, place="fuzz"
)
LAYOUT = Layout(cutter=LineCutter, start=0, is_array=False)


def jsonl(data: bytes) -> None:
    """Every line of any bytes becomes a row or a fault, and what is written can be written."""
    file = InputFile(path="a", name="a", format="jsonl", compression="", size_bytes=len(data), digest="")
    columns = ResolvedColumns(text="text", id="id", carried=text_carried(CONFIG))
    lines = data.splitlines(keepends=True)
    block = JsonParser(file, CONFIG, columns, LAYOUT, "utf-8").block(lines, 0)
    assert block.count == len(lines)
    for text in (*block.ids, *block.texts):
        text.encode()
    for fault in block.faults:
        fault.excerpt.encode()


def config(data: bytes) -> None:
    """Any file is a config, or a ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "fuzz.toml"
        place.write_bytes(data)
        try:
            assert isinstance(load_config(place), RunConfig)
        except ConfigError:
            return


TARGETS = {"jsonl": jsonl, "config": config}
