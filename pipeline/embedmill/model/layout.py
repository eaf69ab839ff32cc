"""Choose among the weight files of a model folder."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from embedmill.base.errors import ModelError
from embedmill.model.contents import read_json
from embedmill.model.names import is_plain

SAFETENSORS = "model.safetensors"
INDEX = "model.safetensors.index.json"
EXPORTS = ("model.onnx", "onnx/model.onnx")

# The first pattern found in a file's name tells its precision; a name without any counts as float32.
_PRECISIONS = (
    (4, re.compile(r"decoder")),
    (3, re.compile(r"q4|int4|4bit|bnb|nf4")),
    (2, re.compile(r"quant|int8|q8|8bit")),
    (1, re.compile(r"fp16|f16|half|o4")),
)
_PICKLES = re.compile(r"(pytorch_model.*|model.*)\.(bin|pt|pth|ckpt|pkl)")
_OTHERS = re.compile(r"(.*\.(h5|msgpack|ot|gguf|ort|tflite|xml|npz|npy)|adapter_model\..*|.*\.safetensors|.*\.onnx)")
_PLACES = ("", "onnx/", "openvino/")


def list_weights(folder: Path) -> list[str]:
    """List files beside a model's weights, relative to `folder`."""
    places = [folder / place for place in _PLACES]
    files = [path for place in places if place.is_dir() for path in place.iterdir() if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def choose_export(names: Iterable[str]) -> str | None:
    """Choose model.onnx, else the most exact export by name.

    float32 comes before float16, 8 bits and 4 bits; among equals the shorter name, then the alphabet.
    """
    exports = [name for name in names if name.endswith(".onnx") and name.rpartition("/")[0] in ("", "onnx")]
    return min(exports, key=_rank, default=None)


def _rank(name: str) -> tuple[int, int, int, str]:
    file = name.rpartition("/")[2].lower()
    place = EXPORTS.index(name) if name in EXPORTS else len(EXPORTS)
    precision = next((rank for rank, pattern in _PRECISIONS if pattern.search(file)), 0)
    return place, precision, len(file), name


def find_export(folder: Path) -> Path | None:
    """Return the ONNX file of a model folder, if any."""
    name = choose_export(list_weights(folder))
    return None if name is None else folder / name


def find_weights(folder: Path) -> list[Path]:
    """Return a model's safetensors files, or none.

    Raises ModelError where the index of several files cannot be read, and naming files that are missing.
    """
    if (folder / SAFETENSORS).is_file() or not (folder / INDEX).is_file():
        return [folder / SAFETENSORS] * (folder / SAFETENSORS).is_file()
    index = folder / INDEX
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"{index} has no weight_map that names the file of each tensor; copy it from the source again")
    names = sorted(set(table.values()))
    for name in names:
        if not is_plain(name):
            raise ModelError(f"{index} names the file {name!r}, outside its folder; that is refused")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} lacks {len(missing)} of {len(names)} weight files that {INDEX} names: {_some(missing)}; copy"
            " them there too"
        )
    return [folder / name for name in names]


def no_weights(place: str, names: Iterable[str], *, source: str, target: str, whole: bool = False) -> ModelError:
    """Name the weights that are there instead of readable ones.

    Pickled ones of `source` can be converted into the folder `target`: the encoder with its tokenizer, or, with
    `whole`, the sentence-transformers model.
    """
    names = list(names)
    pickles = [name for name in names if _PICKLES.fullmatch(name)]
    others = [name for name in names if _OTHERS.fullmatch(name)]
    said = f"{place} has neither {SAFETENSORS} nor {' nor '.join(EXPORTS)}"
    if pickles:
        load = "from transformers import AutoModel as m, AutoTokenizer as t; "
        load += "; ".join(f"{name}.from_pretrained({source!r}).save_pretrained({target!r})" for name in "mt")
        if whole:
            load = f"from sentence_transformers import SentenceTransformer as m; m({source!r}).save({target!r})"
        return ModelError(
            f"{said}, but {_some(pickles)}: pickled weights may run code, so they are never opened; convert them where"
            f' torch is installed: python -c "{load}"'
        )
    if any(name.startswith("adapter_model.") for name in names):
        return ModelError(f"{said}, but an adapter (LoRA); merge it into its base model and add that one")
    if any(re.fullmatch(r"model-\d+-of-\d+\.safetensors", name) for name in names):
        return ModelError(f"{said}, but {_some(others)} without {INDEX}; copy the index there too")
    if others:
        return ModelError(f"{said}, but {_some(others)}; export the model to ONNX, or save it as {SAFETENSORS}")
    return ModelError(f"{said}; copy one of them there")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
