"""Build a bundle from a model folder."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from embedmill.base.errors import ModelError
from embedmill.base.files.digest import sha256_of
from embedmill.base.records import Graph
from embedmill.model.bundle import FORMAT, WEIGHTS, WEIGHTS_FP16, Bundle, Card, Flavour, write_card
from embedmill.model.contents import stand_in
from embedmill.model.layout import EXPORTS, SAFETENSORS, find_export, find_weights, list_weights, no_weights
from embedmill.model.names import TOKENIZER
from embedmill.model.recipe import Pooling, Recipe, encoder_folder, padding_id, read_config, read_recipe

LOG = logging.getLogger("embedmill")
if TYPE_CHECKING:
    from embedmill.model.head import DenseWeights

# The graphs of a BERT encoder: flavours, their shared weight file, and whether it is float16.
_BERT_FILES: tuple[tuple[tuple[Flavour, ...], str, bool], ...] = (
    (("fused", "unfused"), WEIGHTS, False),
    (("fused-fp16", "unfused-fp16"), WEIGHTS_FP16, True),
)


class _Parts(Struct, frozen=True, kw_only=True):
    """Encoder's folder and `config.json`, and the head."""

    encoder: Path
    config: dict[str, Any]
    recipe: Recipe
    dense: list[DenseWeights]
    dim: int | None


class _Built(Struct, frozen=True, kw_only=True):
    """Vector width, graphs, and the source's weight files."""

    dim: int
    graphs: dict[Flavour, Graph]
    sources: list[Path]


def build_bundle(
    source: Path,
    folder: Path,
    *,
    name: str,
    origin: str,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    dim: int | None = None,
    export: Path | None = None,
) -> Bundle:
    """Write a model folder as a bundle without canaries.

    `source` is the model, `folder` an empty folder. A BERT encoder is built from its safetensors, any other from its
    ONNX export, or RoBERTa without one from its safetensors; `export` names the ONNX file to take. `pooling` and
    `normalize` apply to folders without `modules.json`; `dim` keeps the first dimensions only. `add_canaries` completes
    the bundle. Raises ModelError naming the missing file or option.
    """
    recipe = read_recipe(source, pooling=pooling, normalize=normalize)
    encoder = encoder_folder(source)
    tokenizer, config = _find_tokenizer(encoder), read_config(encoder)
    from embedmill.model.head import read_dense  # here, because onnx is slow to import

    dense = read_dense(source, recipe)
    built = _build_graphs(_Parts(encoder=encoder, config=config, recipe=recipe, dense=dense, dim=dim), folder, export)
    shutil.copyfile(tokenizer, folder / TOKENIZER)
    card = Card(
        format=FORMAT,
        name=name,
        origin=origin,
        recipe=recipe,
        dim=built.dim,
        pad_id=padding_id(config, encoder),
        weights=sha256_of([*built.sources, *(source / layer.path / SAFETENSORS for layer in recipe.dense)]),
        tokenizer=sha256_of([tokenizer]),
        graphs=built.graphs,
        files={path.name: sha256_of([path]) for path in sorted(folder.iterdir())},
    )
    return write_card(folder, card)


def _find_tokenizer(source: Path) -> Path:
    path = source / TOKENIZER
    if not path.is_file():
        raise ModelError(
            f"{source} has no tokenizer.json; save the fast tokenizer there"
            f' (python -c "from transformers import AutoTokenizer as t; t.from_pretrained({str(source)!r})'
            f'.save_pretrained({str(source)!r})")'
        )
    if (reason := stand_in(path)) is not None:
        raise ModelError(f"{path} is not a tokenizer file: {reason}")
    return path


def _build_graphs(parts: _Parts, folder: Path, export: Path | None) -> _Built:
    source, kind = parts.encoder, parts.config.get("model_type")
    found = export or find_export(source)
    # A BERT encoder is built even beside an export, which has no float16 graphs.
    whole_bert = export is None and kind == "bert" and (source / SAFETENSORS).is_file()
    if (whole_bert or found is None) and (weights := find_weights(source)):
        return _build_bert(parts, folder, weights)
    if found is None:
        raise no_weights(str(source), list_weights(source), source=str(source), target=str(source))
    if export is None and found.relative_to(source).as_posix() not in EXPORTS:
        LOG.info("%s has no model.onnx; taking %s, the most exact of its exports by name", source, found.name)
    return _build_export(parts, folder, found)


def _build_bert(parts: _Parts, folder: Path, paths: list[Path]) -> _Built:
    from embedmill.model import bert
    from embedmill.model.graph import GraphWriter, WeightFile
    from embedmill.model.head import OUTPUT, append_head

    shape = bert.read_shape(parts.config, parts.encoder)
    width = 0
    graphs: dict[Flavour, Graph] = {}
    with bert.open_weights(*paths) as weights, _shapes_that_fit(parts.encoder):
        for flavours, file_name, half in _BERT_FILES:
            with (folder / file_name).open("wb") as file:
                shared = WeightFile(file, file_name)
                for flavour in flavours:
                    graph = GraphWriter(shared)
                    tokens = bert.append_bert(graph, weights, shape, fused=flavour.startswith("fused"), half=half)
                    width = append_head(
                        graph, tokens, hidden=shape.hidden, recipe=parts.recipe, dense=parts.dense, dim=parts.dim
                    )
                    graph.save(folder / f"{flavour}.onnx", inputs=bert.INPUTS, output=OUTPUT, dim=width)
                    graphs[flavour] = Graph(file=f"{flavour}.onnx", opset=graph.opset, optimise=False)
    return _Built(dim=width, graphs=graphs, sources=paths)


@contextmanager
def _shapes_that_fit(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError) as error:
        raise ModelError(
            f"{folder}: its tensors do not fit together ({error}); its weights and config.json are of different models"
        ) from error


def _build_export(parts: _Parts, folder: Path, export: Path) -> _Built:
    from embedmill.model.export import copy_export

    copied = copy_export(
        export, folder / "model.onnx", recipe=parts.recipe, dense=parts.dense, dim=parts.dim, config=parts.config
    )
    # An export has one graph for both flavours, and the runtime fuses its operators.
    graph = Graph(file="model.onnx", opset=copied.opset, optimise=True)
    graphs: dict[Flavour, Graph] = {"fused": graph, "unfused": graph}
    return _Built(dim=copied.dim, graphs=graphs, sources=copied.sources)
