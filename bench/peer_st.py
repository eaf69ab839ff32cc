"""The peer's half of `bench/peers.py`: embeds a JSON list of texts with sentence-transformers.

Runs in the peer's own environment and needs nothing else there. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer


def embed(model_folder: Path, texts: list[str], vectors: Path) -> dict[str, object]:
    """Embeds as its documentation shows, with its own defaults; saves float32 [n, width]."""
    start = time.perf_counter()
    model = SentenceTransformer(str(model_folder), device="cpu")
    loaded = time.perf_counter()
    found = model.encode(texts, batch_size=32)
    done = time.perf_counter()
    np.save(vectors, np.asarray(found, dtype=np.float32))
    return {
        "documents": len(texts),
        "load_seconds": loaded - start,
        "encode_seconds": done - loaded,
        "threads": torch.get_num_threads(),
    }


def survey(model_folder: Path, texts: list[str]) -> dict[str, object]:
    """Token counts of the texts, special tokens included, without and with truncation, and versions."""
    model = SentenceTransformer(str(model_folder), device="cpu")
    limit = int(model.max_seq_length or 0)
    tokenizer: Any = model.tokenizer
    whole = np.array([len(ids) for ids in tokenizer(texts, truncation=False, verbose=False)["input_ids"]])
    marks = {"min": 0, "p10": 10, "p25": 25, "median": 50, "p75": 75, "p90": 90, "max": 100}
    packages = ("sentence-transformers", "transformers", "tokenizers", "torch", "numpy")
    return {
        "limit": limit,
        "untruncated": {name: float(np.percentile(whole, mark)) for name, mark in marks.items()},
        "mean_untruncated": float(whole.mean()),
        "mean": float(np.minimum(whole, limit).mean()),
        "total": int(np.minimum(whole, limit).sum()),
        "truncated_share": float((whole > limit).mean()),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def main() -> None:
    """Embeds the texts, or with `--survey` only counts their tokens."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--texts", type=Path, required=True, help="JSON list of strings")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--vectors", type=Path, help="the .npy file to write")
    wanted.add_argument("--survey", action="store_true", help="count tokens, embed nothing")
    options = parser.parse_args()
    texts: list[str] = json.loads(options.texts.read_text(encoding="utf-8"))
    if options.survey:
        print(json.dumps(survey(options.model, texts)))
    else:
        print(json.dumps(embed(options.model, texts, options.vectors)))


if __name__ == "__main__":
    main()
