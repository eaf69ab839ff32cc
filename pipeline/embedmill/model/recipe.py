"""Read pooling, normalisation, length and prompts of a sentence-transformers folder."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any, Literal

from msgspec import Struct

from embedmill.base.config import MIB
from embedmill.base.errors import ModelError

Pooling = Literal["mean", "cls", "last", "max", "mean_sqrt_len"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last", "max", "mean_sqrt_len")

# Names in 1_Pooling/config.json, in the order in which sentence-transformers concatenates several
# (sentence_transformers/sentence_transformer/modules/pooling.py, 6.2).
_LEGACY_MODES: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_lasttoken": "last",
}
_MODES: dict[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "lasttoken": "last",
}
# transformers writes 1e30 where a tokenizer has no limit.
_NO_LIMIT = 1e9
_ACTIVATIONS = {"Tanh": "Tanh", "Identity": "", "ReLU": "Relu", "Sigmoid": "Sigmoid"}
# The feature that a Dense layer of sentence-transformers reads and writes by default.
_VECTOR = "sentence_embedding"
# Far more than the config of any model.
_JSON_BYTES = 16 * MIB


class Dense(Struct, frozen=True, kw_only=True):
    """Dense layer: folder inside the model, ONNX activation ("": none)."""

    path: str
    activation: str


class Recipe(Struct, frozen=True, kw_only=True):
    """Preparation of texts and steps from token embeddings to vector.

    `max_tokens` counts special tokens. Several poolings are concatenated in their order.
    """

    pooling: tuple[Pooling, ...]
    normalize: bool
    max_tokens: int
    lowercase: bool
    prompts: dict[str, str]
    default_prompt: str
    dense: tuple[Dense, ...] = ()


def read_recipe(folder: Path, *, pooling: Pooling | None = None, normalize: bool | None = None) -> Recipe:
    """Read the recipe of a model folder.

    `pooling` and `normalize` apply only to a folder without `modules.json`, and then both are required.
    Raises ModelError naming the file that is missing or has an unsupported value.
    """
    modules = _read_modules(folder)
    if modules is not None:
        poolings, dense, normalize = _read_head(folder, modules)
    elif pooling not in POOLINGS or normalize is None:
        raise ModelError(
            f"{folder} has no modules.json, so its pooling is unknown; give both --pooling"
            f" ({', '.join(POOLINGS)}) and --normalize or --no-normalize"
        )
    else:
        poolings, dense = (pooling,), ()
    prompts, default_prompt = _read_prompts(folder)
    sentence_config = _read_json(folder / "sentence_bert_config.json", required=False)
    return Recipe(
        pooling=poolings,
        normalize=normalize,
        max_tokens=_max_tokens(folder, sentence_config),
        lowercase=bool(sentence_config.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt=default_prompt,
        dense=dense,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json`; raise ModelError unless a JSON object."""
    return _read_json(folder / "config.json", required=True)


def _read_modules(folder: Path) -> list[tuple[str, str]] | None:
    """Return (kind, path) per module; None without `modules.json`."""
    path = folder / "modules.json"
    if not path.exists():
        return None
    entries = _load_json(path)
    try:
        modules = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in entries]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{path}: not a list of sentence-transformers modules; fetch the model again") from error
    for _, location in modules:
        if PurePath(location).is_absolute() or ".." in PurePath(location).parts or "\\" in location:
            raise ModelError(f"{path}: its module in {location!r} lies outside the model's folder; that is refused")
    return modules


def _read_head(folder: Path, modules: list[tuple[str, str]]) -> tuple[tuple[Pooling, ...], tuple[Dense, ...], bool]:
    """Return poolings, dense layers and normalisation."""
    poolings: tuple[Pooling, ...] = ()
    dense: list[Dense] = []
    normalize = False
    for kind, path in modules:
        if kind == "Transformer":
            continue
        if kind == "Pooling" and not poolings:
            poolings = _read_pooling(folder / path / "config.json")
        elif kind == "Dense" and poolings and not normalize:
            dense.append(_read_dense(folder, path))
        elif kind == "Normalize" and poolings:
            normalize = True
        else:
            raise ModelError(
                f"{folder / 'modules.json'}: module {kind!r} is not supported here; only Transformer, Pooling,"
                " Dense and Normalize, in this order, can be put into the graph"
            )
    if not poolings:
        raise ModelError(f"{folder / 'modules.json'}: it has no Pooling module, so there is no vector per text")
    return poolings, tuple(dense), normalize


def _read_pooling(path: Path) -> tuple[Pooling, ...]:
    config = _read_json(path, required=True)
    if config.get("include_prompt") is False:
        raise ModelError(f"{path}: include_prompt = false (prompt left out of pooling) is not supported")
    stated = config.get("pooling_mode")
    if stated is None:
        known = [mode for key, mode in _LEGACY_MODES.items() if config.get(key)]
        enabled = [key for key in config if key.startswith("pooling_mode_") and config[key]]
        unknown = [key for key in enabled if key not in _LEGACY_MODES]
    else:
        names = [str(name) for name in stated] if isinstance(stated, list) else [str(stated)]
        known = [_MODES[name] for name in names if name in _MODES]
        unknown = [name for name in names if name not in _MODES]
    if unknown or not known:
        raise ModelError(f"{path}: pooling {unknown or 'nothing'} is not supported; {', '.join(POOLINGS)} are")
    return tuple(known)


def _read_dense(folder: Path, path: str) -> Dense:
    config = _read_json(folder / path / "config.json", required=True)
    # Tanh is the default of sentence-transformers.
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    rerouted = {config.get(key) or _VECTOR for key in ("module_input_name", "module_output_name")} != {_VECTOR}
    if activation not in _ACTIVATIONS or config.get("use_residual") or rerouted:
        raise ModelError(
            f"{folder / path}: a Dense layer with {activation}, a residual or other inputs than the pooled vector"
            " is not supported"
        )
    return Dense(path=path, activation=_ACTIVATIONS[activation])


def _read_prompts(folder: Path) -> tuple[dict[str, str], str]:
    path = folder / "config_sentence_transformers.json"
    config = _read_json(path, required=False)
    named = config.get("prompts") or {}
    if not isinstance(named, dict):
        raise ModelError(f"{path}: its prompts are not a JSON object")
    prompts = {str(name): str(prompt) for name, prompt in named.items()}
    name = config.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise ModelError(f"{path}: default_prompt_name {name!r} is not among its prompts")
    return prompts, prompts[name] if name is not None else ""


def _max_tokens(folder: Path, sentence_config: dict[str, Any]) -> int:
    """Return max_seq_length, bounded by the number of position embeddings."""
    tokenizer_config = _read_json(folder / "tokenizer_config.json", required=False)
    stated = {
        "max_seq_length": sentence_config.get("max_seq_length"),
        "max_position_embeddings": read_config(folder).get("max_position_embeddings"),
    }
    if stated["max_seq_length"] is None:
        stated["model_max_length"] = tokenizer_config.get("model_max_length")
    for name, limit in stated.items():
        if limit is not None and (not isinstance(limit, int | float) or limit < 1):
            raise ModelError(f"{folder}: {name} is {limit!r}, not a token count; correct it or fetch the model again")
    limits = [int(limit) for limit in stated.values() if limit is not None and limit < _NO_LIMIT]
    if not limits:
        raise ModelError(f"{folder}: no maximum length is stated; add a sentence_bert_config.json with max_seq_length")
    return min(limits)


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    if not required and not path.exists():
        return {}
    values = _load_json(path)
    if not isinstance(values, dict):
        raise ModelError(f"{path} is not a JSON object; fetch the model again")
    return values


def _load_json(path: Path) -> Any:
    try:
        # A pipe or device could block or never end.
        if not path.is_file():
            reason = "is not a regular file" if path.exists() else "is missing; the model folder is incomplete"
            raise ModelError(f"{path} {reason}, fetch it again")
        if path.stat().st_size > _JSON_BYTES:
            raise ModelError(f"{path} is larger than {_JSON_BYTES:,} bytes, too large for a config; fetch it again")
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}); fetch the model again") from error
