"""The bundle: a folder with the graphs, weights and tokenizer of one model, and what identifies it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from embedmill.base.config import TextTable
from embedmill.base.errors import ConfigError, ModelError
from embedmill.base.records import Canaries, Graph, Model
from embedmill.model.canaries import read_canaries, write_canaries
from embedmill.model.names import check_names
from embedmill.model.recipe import Pooling, Recipe, read_config, read_recipe

CARD = "bundle.json"
TOKENIZER = "tokenizer.json"
WEIGHTS = "weights.bin"
WEIGHTS_FP16 = "weights-fp16.bin"
FORMAT = 3

Flavour = Literal["fused", "unfused", "fused-fp16", "unfused-fp16"]


# The graphs of a BERT encoder: flavours, the weight file they share, and whether it is float16.
_BERT_FILES: tuple[tuple[tuple[Flavour, ...], str, bool], ...] = (
    (("fused", "unfused"), WEIGHTS, False),
    (("fused-fp16", "unfused-fp16"), WEIGHTS_FP16, True),
)


class GraphFile(Struct, frozen=True, kw_only=True):
    """One graph of a bundle; `optimise` says whether the runtime should still fuse operators in it."""

    file: str
    opset: int
    optimise: bool


class Card(Struct, frozen=True, kw_only=True):
    """`bundle.json`: `weights` and `tokenizer` are sha256 of the source's files, `files` of the bundle's."""

    format: int
    name: str
    origin: str
    recipe: Recipe
    dim: int
    pad_id: int
    weights: str
    tokenizer: str
    graphs: dict[Flavour, GraphFile]
    files: dict[str, str]


class Bundle(Struct, frozen=True, kw_only=True):
    """An opened bundle."""

    folder: Path
    card: Card

    def model(self, config: TextTable, *, canaries: Canaries | None = None) -> Model:
        """The model as a job's text options make it; `canaries` stand for the bundle's own.

        Raises ConfigError for an unknown prompt name, or more tokens than the model has positions for, and
        ModelError where the bundle has no canaries.
        """
        recipe = self.card.recipe
        prompt = self._prompt(config)
        max_tokens = config.max_tokens or recipe.max_tokens
        if max_tokens > recipe.max_tokens:
            raise ConfigError(
                f"`text.max_tokens` = {max_tokens}, but {self.card.name} takes {recipe.max_tokens} at most"
            )
        return Model(
            name=self.card.name,
            identity=self._identity(prompt, max_tokens),
            graphs={
                flavour: Graph(path=str(self.folder / graph.file), opset=graph.opset, optimise=graph.optimise)
                for flavour, graph in self.card.graphs.items()
            },
            weights_bytes=max(_size(self.folder / name) for name in self.card.files),
            canaries=read_canaries(self.folder) if canaries is None else canaries,
            tokenizer=str(self.folder / TOKENIZER),
            dim=self.card.dim,
            pad_id=self.card.pad_id,
            max_tokens=max_tokens,
            prompt=prompt,
            lowercase=recipe.lowercase,
            normalized=recipe.normalize,
        )

    def _prompt(self, config: TextTable) -> str:
        recipe = self.card.recipe
        if config.prompt is not None:
            return config.prompt
        if config.prompt_name is None:
            return recipe.default_prompt
        if config.prompt_name not in recipe.prompts:
            known = ", ".join(sorted(recipe.prompts)) or "none"
            raise ConfigError(f"`text.prompt_name` = {config.prompt_name!r}: {self.card.name} has the prompts: {known}")
        return recipe.prompts[config.prompt_name]

    def _identity(self, prompt: str, max_tokens: int) -> str:
        """sha256 over weights, tokenizer, head, prompt, length, dimension and dtype; batch size, provider
        and threads are no part of it."""
        recipe = self.card.recipe
        parts = {
            "weights": self.card.weights,
            "tokenizer": self.card.tokenizer,
            "pooling": list(recipe.pooling),
            "normalize": recipe.normalize,
            "lowercase": recipe.lowercase,
            "dense": [layer.activation for layer in recipe.dense],
            "prompt": prompt,
            "max_tokens": max_tokens,
            "dim": self.card.dim,
            "dtype": "float32",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def open_bundle(folder: Path) -> Bundle:
    """The bundle in a folder; its files are not read yet (see `check_files`).

    Raises ModelError where `bundle.json` is missing, damaged or of another format, or does not pin what is loaded.
    """
    try:
        card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no model bundle; make one with `embedmill model add`") from error
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{folder / CARD} is damaged ({error}); add the model again") from error
    if card.format != FORMAT:
        raise ModelError(f"{folder} has bundle format {card.format}, this program needs {FORMAT}; add the model again")
    graphs = (graph.file for graph in card.graphs.values())
    check_names(folder / CARD, (TOKENIZER, *graphs), card.files)
    return Bundle(folder=folder, card=card)


def is_stale(folder: Path) -> bool:
    """Whether a bundle was written in the format of another version of this program."""
    try:
        return bool(json.loads((folder / CARD).read_bytes()).get("format") != FORMAT)
    except (OSError, ValueError, AttributeError):
        return False


def check_files(bundle: Bundle) -> None:
    """Compare every file with its recorded sha256. Raises ModelError naming the one that differs."""
    for name, recorded in bundle.card.files.items():
        path = bundle.folder / name
        if not path.is_file() or _sha256([path]) != recorded:
            raise ModelError(f"{path} is missing or damaged (sha256 differs); add the model again")


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
    """Write the bundle of the model folder `source` into the empty folder `folder`.

    A BERT encoder is built from its safetensors; any other encoder needs an ONNX export. `pooling`
    and `normalize` are for folders without `modules.json`, `dim` keeps the first dimensions only.
    The bundle still lacks its canaries (see `add_canaries`). Raises ModelError naming what is missing.
    """
    recipe = read_recipe(source, pooling=pooling, normalize=normalize)
    tokenizer, config = _find_tokenizer(source), read_config(source)
    width, graphs, read = _build_graphs(source, folder, config, recipe, dim)
    shutil.copyfile(tokenizer, folder / TOKENIZER)
    card = Card(
        format=FORMAT,
        name=name,
        origin=origin,
        recipe=recipe,
        dim=width,
        pad_id=_pad_id(config, source),
        weights=_sha256([*read, *(source / layer.path / "model.safetensors" for layer in recipe.dense)]),
        tokenizer=_sha256([tokenizer]),
        graphs=graphs,
        files={path.name: _sha256([path]) for path in sorted(folder.iterdir())},
    )
    return _write_card(folder, card)


def add_canaries(bundle: Bundle, canaries: Canaries) -> Bundle:
    """Complete a bundle with its canaries."""
    path = write_canaries(bundle.folder, canaries)
    files = bundle.card.files | {path.name: _sha256([path])}
    return _write_card(bundle.folder, msgspec.structs.replace(bundle.card, files=files))


def _write_card(folder: Path, card: Card) -> Bundle:
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card)))
    return Bundle(folder=folder, card=card)


def _find_tokenizer(source: Path) -> Path:
    path = source / TOKENIZER
    if not path.is_file():
        raise ModelError(
            f"{source} has no tokenizer.json; save the fast tokenizer there"
            " (transformers: AutoTokenizer.from_pretrained(...).save_pretrained(FOLDER))"
        )
    return path


def _pad_id(config: dict[str, Any], source: Path) -> int:
    found = config.get("pad_token_id") or 0
    if not isinstance(found, int) or not 0 <= found < 2**31:
        raise ModelError(f"{source / 'config.json'}: pad_token_id is {found!r}, no token's number; mend it")
    return found


def _build_graphs(
    source: Path, folder: Path, config: dict[str, Any], recipe: Recipe, dim: int | None
) -> tuple[int, dict[Flavour, GraphFile], list[Path]]:
    """The width of a vector, the graphs, and the files that the weights came from."""
    from embedmill.model.export import LOCATIONS, find_export

    export = find_export(source)
    if (source / "model.safetensors").is_file() and (config.get("model_type") == "bert" or export is None):
        return _build_bert(source, folder, config, recipe, dim)
    if export is not None:
        return _build_export(source, folder, export, recipe, dim)
    raise ModelError(f"{source} has neither model.safetensors nor {' nor '.join(LOCATIONS)}; fetch the model again")


def _build_bert(
    source: Path, folder: Path, config: dict[str, Any], recipe: Recipe, dim: int | None
) -> tuple[int, dict[Flavour, GraphFile], list[Path]]:
    from embedmill.model import bert
    from embedmill.model.graph import GraphWriter, WeightFile
    from embedmill.model.head import OUTPUT, append_head, read_dense

    shape = bert.read_shape(config, source)
    path = source / "model.safetensors"
    dense = read_dense(source, recipe)
    width = 0
    graphs: dict[Flavour, GraphFile] = {}
    with bert.open_weights(path) as weights:
        for flavours, file_name, half in _BERT_FILES:
            with (folder / file_name).open("wb") as file:
                shared = WeightFile(file, file_name)
                for flavour in flavours:
                    graph = GraphWriter(shared)
                    tokens = bert.append_bert(graph, weights, shape, fused=flavour.startswith("fused"), half=half)
                    width = append_head(
                        graph,
                        tokens=tokens,
                        mask="attention_mask",
                        hidden=shape.hidden,
                        recipe=recipe,
                        dense=dense,
                        dim=dim,
                    )
                    graph.save(folder / f"{flavour}.onnx", inputs=bert.INPUTS, output=OUTPUT, dim=width)
                    graphs[flavour] = GraphFile(file=f"{flavour}.onnx", opset=graph.opset, optimise=False)
    return width, graphs, [path]


def _build_export(
    source: Path, folder: Path, export: Path, recipe: Recipe, dim: int | None
) -> tuple[int, dict[Flavour, GraphFile], list[Path]]:
    from embedmill.model.export import write_export
    from embedmill.model.head import read_dense

    dense = read_dense(source, recipe)
    written = write_export(export, folder / "model.onnx", recipe=recipe, dense=dense, dim=dim)
    graph = GraphFile(file="model.onnx", opset=written.opset, optimise=True)
    return written.dim, {"fused": graph, "unfused": graph}, written.read


def _size(path: Path) -> int:
    """Bytes of a file; 0 where it is missing, which `check_files` says with its name."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _sha256(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
