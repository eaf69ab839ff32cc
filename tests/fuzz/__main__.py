"""Coverage-guided fuzzing, in an environment of its own (make fuzz): `python -m tests.fuzz jsonl|config [SECONDS]`.

What is raised beside the errors that are promised ends the fuzzer, which keeps the input that did it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pipeline"]):
    from pipeline.config import RunConfig
    from pipeline.configfile import load_config, parse_config
    from pipeline.errors import ConfigError
    from pipeline.records import InputFile
    from pipeline.source.columns import Resolved, text_carried
    from pipeline.source.jsonl import JsonParser
    from pipeline.source.rows import parsed

CONFIG = parse_config(
    {"columns": {"carry": ["n", "s"], "types": {"n": "int64"}}, "input": {"paths": ["a"]}}, place="fuzz"
)


PLACE = Path(tempfile.mkdtemp()) / "fuzz.toml"


def jsonl(data: bytes) -> None:
    """Every line of any bytes becomes a row or a fault, and what is written can be written."""
    file = InputFile(path="a", name="a", format="jsonl", compression="", size_bytes=len(data), digest="")
    columns = Resolved(text="text", id="id", carried=text_carried(CONFIG))
    lines = data.splitlines(keepends=True)
    block = parsed(lines, 0, JsonParser(file, CONFIG, columns), columns, 1 << 20)
    assert block.count == len(lines)
    for text in (*block.ids, *block.texts):
        text.encode()
    for fault in block.faults:
        fault.excerpt.encode()


def config(data: bytes) -> None:
    """Any file is a config, or a ConfigError."""
    PLACE.write_bytes(data)
    try:
        assert isinstance(load_config(PLACE), RunConfig)
    except ConfigError:
        return


if __name__ == "__main__":
    target = {"jsonl": jsonl, "config": config}[sys.argv[1]]
    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-print_final_stats=1"], target)
    atheris.Fuzz()
