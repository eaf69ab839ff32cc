"""Runs a bundle's graph on a padded batch, through ONNX Runtime alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from embedmill.model.build import build_bundle
from embedmill.model.bundle import Bundle, Flavour
from embedmill.tune.reference import add_reference

FLAVOURS: tuple[Flavour, ...] = ("fused", "unfused", "fused-fp16", "unfused-fp16")
# Against float64 through two layers.
TOLERANCE: dict[Flavour, float] = {"fused": 2e-5, "unfused": 2e-5, "fused-fp16": 1e-2, "unfused-fp16": 1e-2}
# Token ids between [CLS] = 2 and [SEP] = 3, of three lengths.
TEXTS = ([2, 7, 9, 30, 3], [2, 3], [2, 12, 80, 81, 6, 44, 25, 10, 3])


def build(source: Path, folder: Path, **options: Any) -> Bundle:
    """The bundle of a model folder, in a new folder, with its canaries."""
    folder.mkdir()
    return add_reference(build_bundle(source, folder, name="tiny", origin="a test", **options))


def run(
    bundle: Bundle, flavour: Flavour, texts: Sequence[Sequence[int]] = TEXTS, *, sequence: int = 0
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Vectors of texts run as one batch, padded with token 0 to the longest, or to `sequence`."""
    length = max(sequence, *(len(text) for text in texts))
    ids = np.array([[*text, *[0] * (length - len(text))] for text in texts], np.int64)
    mask = np.array([[1] * len(text) + [0] * (length - len(text)) for text in texts], np.int64)
    session = ort.InferenceSession(graph_path(bundle, flavour), providers=["CPUExecutionProvider"])
    found: np.ndarray[Any, np.dtype[np.float32]] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
    return found


def graph_path(bundle: Bundle, flavour: Flavour) -> Path:
    """The ONNX file of one flavour."""
    return bundle.folder / bundle.card.graphs[flavour].file
