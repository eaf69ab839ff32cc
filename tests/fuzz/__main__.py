"""Coverage-guided fuzzing, in an environment of its own (make fuzz): `python -m tests.fuzz jsonl|config [SECONDS]`.

What is raised beside the errors that are promised ends the fuzzer, which keeps the input that did it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

from tests.fuzz.seeds import SEEDS

with atheris.instrument_imports(include=["embedmill", "tomllib"]):
    from tests.fuzz.targets import TARGETS


if __name__ == "__main__":
    name = sys.argv[1]
    seconds = sys.argv[2] if len(sys.argv) > 2 else "60"
    corpus = Path(tempfile.mkdtemp())
    for number, seed in enumerate(SEEDS[name].values()):
        (corpus / str(number)).write_bytes(seed)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-print_final_stats=1", str(corpus)], TARGETS[name])
    atheris.Fuzz()
