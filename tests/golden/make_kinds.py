"""Makes `kinds.npz`: vectors of tiny models of RoBERTa's kinds, as sentence-transformers computes them.

    python -m tests.golden.make_kinds

in an environment with sentence-transformers and torch; the models are those of tests/support/tiny_model.py.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from tests.support.tiny_model import HIDDEN, ROBERTA_KINDS, write_json, write_tiny_roberta

# Padding tokens stand in two of them.
TEXTS = (
    "",
    "a",
    "the river",
    "The stone window in the garden, 42!",
    "music " * 40,
    "paper [PAD] winter [PAD] bridge",
    "[PAD][PAD] silver market",
    "engine [MASK] forest [SEP] letter",
)


def main() -> None:
    """Makes the file next to this one, one text per call, so that nothing is padded."""
    found: dict[str, np.ndarray] = {"texts": np.array(TEXTS)}
    torch.set_num_threads(1)
    for kind in ROBERTA_KINDS:
        with tempfile.TemporaryDirectory() as folder:
            model = write_tiny_roberta(Path(folder), kind=kind)
            names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
            settings = {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "[MASK]", "model_max_length": 32}
            write_json(model / "tokenizer_config.json", names | settings)
            write_json(model / "1_Pooling/config.json", {"embedding_dimension": HIDDEN, "pooling_mode": "mean"})
            encoder = SentenceTransformer(folder, device="cpu")
            found[kind] = np.concatenate([encoder.encode([text], show_progress_bar=False) for text in TEXTS])
    np.savez(Path(__file__).parent / "kinds.npz", allow_pickle=False, **found)
    print({kind: vectors.shape for kind, vectors in found.items()})


if __name__ == "__main__":
    main()
