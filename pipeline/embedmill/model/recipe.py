"""Read pooling, normalisation, length and prompts of a sentence-transformers folder."""

from __future__ import annotations

import logging
import math
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from embedmill.base.errors import ConfigError, ModelError
from embedmill.model.contents import load_json, read_json
from embedmill.model.layout import find_export

Pooling = Literal["mean", "cls", "last", "max", "mean_sqrt_len"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls", "last", "max", "mean_sqrt_len")
LOG = logging.getLogger("embedmill")

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
# Files that sentence-transformers reads the length from: the first that is there (models/Transformer, 6.2).
_SENTENCE_CONFIGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Encoders whose first position is the padding id + 1 (transformers 5.24, create_position_ids_from_input_ids):
# of their position embeddings, so many hold no token. By default the padding id is 1.
_LATE_POSITIONS = (
    "roberta",
    "xlm-roberta",
    "camembert",
    "mpnet",
    "data2vec-text",
    "ibert",
    "lilt",
    "longformer",
    "xmod",
)
_MOST_TOKENS = 1 << 24
# transformers writes 1e30 where a tokenizer has no limit.
_NO_LIMIT = 1e9
_ACTIVATIONS = {"Tanh": "Tanh", "Identity": "", "ReLU": "Relu", "Sigmoid": "Sigmoid"}
# The feature that a Dense layer of sentence-transformers reads and writes by default.
_VECTOR = "sentence_embedding"


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
    max_tokens: Annotated[int, Meta(ge=1, le=_MOST_TOKENS)]
    lowercase: bool
    prompts: dict[str, str]
    default_prompt: str
    dense: tuple[Dense, ...] = ()


def read_recipe(folder: Path, *, pooling: Pooling | None = None, normalize: bool | None = None) -> Recipe:
    """Read the recipe of a model folder.

    A folder without `modules.json` needs both `pooling` and `normalize`. Raises ModelError naming the file that is
    missing or has an unsupported value, ConfigError where an option contradicts `modules.json`.
    """
    modules, encoder = _read_modules(folder), encoder_folder(folder)
    config = read_config(encoder)
    if modules is not None:
        poolings, dense, normalized = _read_head(folder, modules)
        _check_options(folder, pooling, poolings, normalize, normalized)
    elif pooling not in POOLINGS or normalize is None:
        raise ModelError(
            f"{folder} has no modules.json, so its pooling is unknown; give both --pooling"
            f" ({', '.join(POOLINGS)}) and --normalize or --no-normalize to `embedmill model add {folder}`"
        )
    else:
        poolings, dense, normalized = (pooling,), (), normalize
    prompts, default_prompt = _read_prompts(folder)
    sentence_config = next((found for name in _SENTENCE_CONFIGS if (found := _read_optional(encoder / name))), {})
    return Recipe(
        pooling=poolings,
        normalize=normalized,
        max_tokens=_max_tokens(encoder, config, sentence_config),
        lowercase=bool(sentence_config.get("do_lower_case", False)),
        prompts=prompts,
        default_prompt=default_prompt,
        dense=dense,
    )


def encoder_folder(folder: Path) -> Path:
    """Return the folder of the encoder's files."""
    if (folder / "config.json").exists():
        return folder
    # Older models have a folder for each module.
    modules = _read_modules(folder) or []
    return folder / next((path for kind, path in modules if kind == "Transformer"), "")


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json`, which only an ONNX export can do without.

    Raises ModelError unless a JSON object.
    """
    path = folder / "config.json"
    return _read_optional(path) if find_export(folder) is not None else read_json(path)


def padding_id(config: dict[str, Any], folder: Path) -> int:
    """Return the token id that fills rows. Raises ModelError."""
    pad_id = config.get("pad_token_id")
    if pad_id is None:
        return int(config.get("model_type") in _LATE_POSITIONS)
    vocabulary = config.get("vocab_size")
    most = vocabulary if type(vocabulary) is int else 2**31
    if type(pad_id) is not int or not 0 <= pad_id < most:
        raise ModelError(
            f"{folder / 'config.json'}: pad_token_id is {pad_id!r}, not one of its {most:,} token ids; correct it"
        )
    return pad_id


def first_position(config: dict[str, Any], folder: Path) -> int:
    """Return the position of a text's first token. Raises ModelError."""
    return padding_id(config, folder) + 1 if config.get("model_type") in _LATE_POSITIONS else 0


def _check_options(
    folder: Path, pooling: str | None, poolings: tuple[str, ...], normalize: bool | None, normalized: bool
) -> None:
    """Raise ConfigError for options that contradict `modules.json`."""
    stated = " + ".join(poolings) + (" pooling, normalised" if normalized else " pooling, not normalised")
    if pooling not in (None, *[poolings[0]] * (len(poolings) == 1)) or normalize not in (None, normalized):
        raise ConfigError(
            f"{folder / 'modules.json'} states {stated}; --pooling and --normalize are for folders without it, so leave"
            " them out"
        )


def _read_modules(folder: Path) -> list[tuple[str, str]] | None:
    """Return (kind, path) per module; None without `modules.json`."""
    path = folder / "modules.json"
    if not path.exists() and not path.is_symlink():
        return None
    entries = load_json(path)
    try:
        modules = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in entries]
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: not a list of sentence-transformers modules; correct it, or copy it from the source again"
        ) from error
    for _, location in modules:
        if PurePath(location).is_absolute() or ".." in PurePath(location).parts or set(location) & set("\\\0"):
            raise ModelError(f"{path}: its module in {location!r} lies outside the model's folder; that is refused")
        if not (folder / location).resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{path}: its module in {location!r} is a link out of the model's folder; that is refused")
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
    config = read_json(path)
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
    config = read_json(folder / path / "config.json")
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
    config = _read_optional(path)
    named = config.get("prompts") or {}
    if not isinstance(named, dict):
        raise ModelError(f"{path}: its prompts are not a JSON object; correct it")
    prompts = {str(name): str(prompt) for name, prompt in named.items()}
    name = config.get("default_prompt_name")
    if name is not None and (not isinstance(name, str) or name not in prompts):
        raise ModelError(f"{path}: default_prompt_name {name!r} is not among its prompts; correct it")
    return prompts, prompts[name] if name is not None else ""


def _max_tokens(folder: Path, config: dict[str, Any], sentence_config: dict[str, Any]) -> int:
    """Return max_seq_length, bounded by the positions that hold tokens."""
    wished = sentence_config.get("max_seq_length")
    tokenizer_config = _read_optional(folder / "tokenizer_config.json")
    stated = {"max_seq_length": wished, "max_position_embeddings": config.get("max_position_embeddings")}
    if wished is None:
        stated["model_max_length"] = tokenizer_config.get("model_max_length")
    for name, limit in stated.items():
        if limit is not None and (type(limit) not in (int, float) or not 1 <= limit < math.inf or limit % 1):
            raise ModelError(f"{folder}: {name} is {limit!r}, not a token count; correct it")
    limits = {name: int(limit) for name, limit in stated.items() if limit is not None and limit < _NO_LIMIT}
    if not limits:
        raise ModelError(f"{folder}: no maximum length is stated; add a sentence_bert_config.json with max_seq_length")
    positions, first = limits.get("max_position_embeddings"), first_position(config, folder)
    if positions is not None and positions <= first:
        raise ModelError(
            f"{folder}: max_position_embeddings is {positions}, but the first position is {first}; correct it"
        )
    if positions is not None:
        limits["max_position_embeddings"] = positions - first
    longest = min(_MOST_TOKENS, *limits.values())
    if wished is not None and longest < wished < _NO_LIMIT:
        LOG.warning(
            "%s: max_seq_length is %d, but the model has positions for %d tokens; texts are cut there",
            folder,
            wished,
            longest,
        )
    return longest


def _read_optional(path: Path) -> dict[str, Any]:
    # A link to a file that is not there counts as present: the file should be there.
    return read_json(path) if path.exists() or path.is_symlink() else {}
