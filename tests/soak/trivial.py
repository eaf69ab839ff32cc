"""A model of one operator and a corpus of short rows: what costs time and memory is the pipeline itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.tiny_model import VOCABULARY, WORDS, bert_config, write_json, write_tokenizer

WIDTH = 8
_INPUTS = ("input_ids", "attention_mask")
_FREE = ("batch", "sequence")


def write_trivial_model(folder: Path) -> Path:
    """A sentence-transformers folder whose ONNX export is one Gather: each token's row of a table, [tokens, 8]."""
    folder.mkdir(parents=True)
    write_tokenizer(folder / "tokenizer.json")
    write_json(folder / "config.json", bert_config() | {"model_type": "lookup"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    write_json(folder / "modules.json", modules)
    onnx.save_model(_lookup(), folder / "model.onnx")
    return folder


def _lookup() -> onnx.ModelProto:
    table = np.random.default_rng(5).normal(size=(len(VOCABULARY), WIDTH)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"], axis=0)],
        "lookup",
        [helper.make_tensor_value_info(name, TensorProto.INT64, _FREE) for name in _INPUTS],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, (*_FREE, WIDTH))],
        [numpy_helper.from_array(table, "table")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def write_corpus(path: Path, rows: int) -> Path:
    """`rows` JSON lines with the ids row-0, row-1, ... and texts of two to four words, no two of a shard alike."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(rows):
            words = f"{WORDS[number % 21]} {WORDS[number // 21 % 21]} {number % 10_000}"
            file.write(f'{{"id": "row-{number}", "text": "{words}"}}\n')
    return path
