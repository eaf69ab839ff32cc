"""Build a bundle from a model folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from embedmill.base.errors import ModelError
from embedmill.base.files.digest import sha256_of
from embedmill.base.records import Graph
from embedmill.model.bundle import FORMAT, TOKENIZER, WEIGHTS, WEIGHTS_FP16, Bundle, Card, Flavour, write_card
from embedmill.model.recipe import Pooling, Recipe, read_config, read_recipe

# Vector width, graphs, and the source's weight files.
_Built = tuple[int, dict[Flavour, Graph], list[Path]]
# The graphs of a BERT encoder: flavours, their shared weight file, and whether it is float16.
_BERT_FILES: tuple[tuple[tuple[Flavour, ...], str, bool], ...] = (
    (("fused", "unfused"), WEIGHTS, False),
    (("fused-fp16", "unfused-fp16"), WEIGHTS_FP16, True),
)


def build_bundle(
    source: Path,
    folder: Path,
    *,
    name: str,
    origin: str,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    dim: int | None = None,
) -> Bundle:
    """Write a model folder as a bundle without canaries.

    `source` is the model, `folder` an empty folder. A BERT encoder is built from its safetensors; any other encoder
    needs an ONNX export. `pooling` and `normalize` apply to folders without `modules.json`; `dim` keeps the first
    dimensions only. `add_canaries` completes the bundle. Raises ModelError naming the missing file or option.
    """
    recipe = read_recipe(source, pooling=pooling, normalize=normalize)
    tokenizer, config = _find_tokenizer(source), read_config(source)
    width, graphs, weight_files = _build_graphs(source, folder, config, recipe, dim)
    shutil.copyfile(tokenizer, folder / TOKENIZER)
    card = Card(
        format=FORMAT,
        name=name,
        origin=origin,
        recipe=recipe,
        dim=width,
        pad_id=_pad_id(config, source),
        weights=sha256_of([*weight_files, *(source / layer.path / "model.safetensors" for layer in recipe.dense)]),
        tokenizer=sha256_of([tokenizer]),
        graphs=graphs,
        files={path.name: sha256_of([path]) for path in sorted(folder.iterdir())},
    )
    return write_card(folder, card)


def _find_tokenizer(source: Path) -> Path:
    path = source / TOKENIZER
    if not path.is_file():
        raise ModelError(
            f"{source} has no tokenizer.json; save the fast tokenizer there"
            " (transformers: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER))"
        )
    return path


def _pad_id(config: dict[str, Any], source: Path) -> int:
    pad_id = config.get("pad_token_id") or 0
    if not isinstance(pad_id, int) or not 0 <= pad_id < 2**31:
        raise ModelError(f"{source / 'config.json'}: pad_token_id is {pad_id!r}, not a token id; correct it")
    return pad_id


def _build_graphs(source: Path, folder: Path, config: dict[str, Any], recipe: Recipe, dim: int | None) -> _Built:
    # onnx is slow to import, and most commands open a finished bundle.
    from embedmill.model.export import LOCATIONS, find_export

    export = find_export(source)
    # A BERT encoder is built even beside an export, which has no float16 graphs.
    if (source / "model.safetensors").is_file() and (config.get("model_type") == "bert" or export is None):
        return _build_bert(source, folder, config, recipe, dim)
    if export is not None:
        return _build_export(source, folder, export, recipe, dim)
    raise ModelError(f"{source} has neither model.safetensors nor {' nor '.join(LOCATIONS)}; fetch the model again")


def _build_bert(source: Path, folder: Path, config: dict[str, Any], recipe: Recipe, dim: int | None) -> _Built:
    from embedmill.model import bert
    from embedmill.model.graph import GraphWriter, WeightFile
    from embedmill.model.head import OUTPUT, append_head, read_dense

    shape = bert.read_shape(config, source)
    path = source / "model.safetensors"
    dense = read_dense(source, recipe)
    width = 0
    graphs: dict[Flavour, Graph] = {}
    with bert.open_weights(path) as weights:
        for flavours, file_name, half in _BERT_FILES:
            with (folder / file_name).open("wb") as file:
                shared = WeightFile(file, file_name)
                for flavour in flavours:
                    graph = GraphWriter(shared)
                    tokens = bert.append_bert(graph, weights, shape, fused=flavour.startswith("fused"), half=half)
                    width = append_head(graph, tokens, hidden=shape.hidden, recipe=recipe, dense=dense, dim=dim)
                    graph.save(folder / f"{flavour}.onnx", inputs=bert.INPUTS, output=OUTPUT, dim=width)
                    graphs[flavour] = Graph(file=f"{flavour}.onnx", opset=graph.opset, optimise=False)
    return width, graphs, [path]


def _build_export(source: Path, folder: Path, export: Path, recipe: Recipe, dim: int | None) -> _Built:
    from embedmill.model.export import copy_export
    from embedmill.model.head import read_dense

    dense = read_dense(source, recipe)
    copied = copy_export(export, folder / "model.onnx", recipe=recipe, dense=dense, dim=dim)
    # An export has one graph for both flavours, and the runtime fuses its operators.
    graph = Graph(file="model.onnx", opset=copied.opset, optimise=True)
    return copied.dim, {"fused": graph, "unfused": graph}, copied.sources
