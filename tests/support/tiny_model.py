"""A tiny random BERT as a sentence-transformers folder, so that a test runs the whole pipeline in moments."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece as WordPieceDecoder
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

HIDDEN = 32
HEADS = 4
LAYERS = 2
INTERMEDIATE = 64
POSITIONS = 64
EPSILON = 1e-12
ROBERTA_KINDS = ("roberta", "xlm-roberta", "camembert")

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *("the", "river", "stone", "window", "garden", "music", "paper", "winter", "bridge", "silver", "market"),
    *("engine", "forest", "letter", "summer", "school", "doctor", "kitchen", "island", "village", "mountain"),
)
_CHARACTERS = [*string.ascii_lowercase, *string.digits, *".,:;!?-'"]
VOCABULARY = (*SPECIALS, *WORDS, *_CHARACTERS, *(f"##{letter}" for letter in string.ascii_lowercase))

_LEGACY_POOLING = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "last": "pooling_mode_lasttoken",
}


def write_tiny_model(
    folder: Path,
    *,
    pooling: str | Sequence[str] = "mean",
    normalize: bool = True,
    max_tokens: int = 32,
    prompts: Mapping[str, str] | None = None,
    default_prompt: str | None = None,
    dense: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a BERT with random weights into `folder` (made if absent), and return the folder.

    2 layers, hidden size 32, 4 heads, 64 positions and a WordPiece vocabulary of `VOCABULARY`: 21 whole words,
    digits, some punctuation, and every other English word letter by letter. `pooling` is one of mean, cls,
    last, max, mean_sqrt_len, or several, which are concatenated; `prompts` are the model's named prompts, of
    which `default_prompt` names one; `dense` adds a Dense layer with tanh to so many dimensions. The same
    arguments always give the same files. Use the folder as `model` of a RunConfig.
    """
    folder.mkdir(parents=True, exist_ok=True)
    poolings = [pooling] if isinstance(pooling, str) else list(pooling)
    draw = np.random.default_rng(seed)
    save_file(random_weights(draw), folder / "model.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    write_json(folder / "config.json", bert_config())
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    write_json(folder / "1_Pooling" / "config.json", {_LEGACY_POOLING[mode]: True for mode in poolings})
    modules = ["Transformer", "Pooling"]
    if dense is not None:
        modules.append("Dense")
        _write_dense(folder / f"{len(modules) - 1}_Dense", HIDDEN * len(poolings), dense, draw)
    if normalize:
        modules.append("Normalize")
    write_json(folder / "modules.json", [_module(number, kind) for number, kind in enumerate(modules)])
    if prompts is not None:
        named = {"prompts": dict(prompts), "default_prompt_name": default_prompt}
        write_json(folder / "config_sentence_transformers.json", named)
    return folder


def write_tiny_roberta(folder: Path, *, kind: str = "roberta", **options: Any) -> Path:
    """The same with RoBERTa's positions, which begin after the padding id 0, so that 64 positions hold 63 tokens."""
    write_tiny_model(folder, **options)
    write_json(folder / "config.json", bert_config() | {"model_type": kind, "type_vocab_size": 1})
    weights = load_file(folder / "model.safetensors")
    types = "embeddings.token_type_embeddings.weight"
    save_file({**weights, types: weights[types][:1].copy()}, folder / "model.safetensors")
    return folder


def bert_config() -> dict[str, Any]:
    """What `config.json` of the tiny BERT says."""
    return {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "layer_norm_eps": EPSILON,
        "vocab_size": len(VOCABULARY),
        "type_vocab_size": 2,
        "pad_token_id": 0,
    }


def random_weights(draw: np.random.Generator) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """The tensors of a BERT under their usual names; large enough that attention is far from even."""

    def normal(*shape: int, scale: float = 0.3, mean: float = 0.0) -> np.ndarray[Any, np.dtype[np.float32]]:
        return draw.normal(mean, scale, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": normal(len(VOCABULARY), HIDDEN, scale=1.0),
        "embeddings.position_embeddings.weight": normal(POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": normal(2, HIDDEN),
        "embeddings.LayerNorm.weight": normal(HIDDEN, mean=1.0, scale=0.1),
        "embeddings.LayerNorm.bias": normal(HIDDEN, scale=0.1),
    }
    linear = {
        "attention.self.query": (HIDDEN, HIDDEN),
        "attention.self.key": (HIDDEN, HIDDEN),
        "attention.self.value": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (INTERMEDIATE, HIDDEN),
        "output.dense": (HIDDEN, INTERMEDIATE),
    }
    for layer in range(LAYERS):
        for name, (width, depth) in linear.items():
            weights[f"encoder.layer.{layer}.{name}.weight"] = normal(width, depth)
            weights[f"encoder.layer.{layer}.{name}.bias"] = normal(width, scale=0.1)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"encoder.layer.{layer}.{name}.weight"] = normal(HIDDEN, mean=1.0, scale=0.1)
            weights[f"encoder.layer.{layer}.{name}.bias"] = normal(HIDDEN, scale=0.1)
    return weights


def write_tokenizer(path: Path, *, truncate: int | None = None, pad: int | None = None, lowercase: bool = True) -> Path:
    """A BERT tokenizer; `truncate` and `pad` bake a length into its file, as some models do."""
    numbers = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(WordPiece(numbers, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.decoder = WordPieceDecoder()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])],
    )
    tokenizer.add_special_tokens(list(SPECIALS))
    if truncate is not None:
        tokenizer.enable_truncation(truncate)
    if pad is not None:
        tokenizer.enable_padding(length=pad)
    tokenizer.save(str(path))
    return path


def write_json(path: Path, values: Any) -> Path:
    """Write a value as JSON, making the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values, indent=2), "utf-8")
    return path


def _write_dense(folder: Path, width: int, dense: int, draw: np.random.Generator) -> None:
    write_json(
        folder / "config.json",
        {
            "in_features": width,
            "out_features": dense,
            "bias": True,
            "activation_function": "torch.nn.modules.activation.Tanh",
        },
    )
    weight = draw.normal(0, 0.3, (dense, width)).astype(np.float32)
    bias = draw.normal(0, 0.1, dense).astype(np.float32)
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "model.safetensors")


def _module(number: int, kind: str) -> dict[str, Any]:
    path = "" if kind == "Transformer" else f"{number}_{kind}"
    return {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
