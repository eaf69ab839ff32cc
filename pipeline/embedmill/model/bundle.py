"""Bundle: folder with one model's graphs, weights, tokenizer and identity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from embedmill.base.config import TextTable
from embedmill.base.errors import ConfigError, ModelError
from embedmill.base.files.digest import first_mismatch, sha256_of
from embedmill.base.files.sealed import read_regular
from embedmill.base.records import Canaries, Graph, Model
from embedmill.base.streams import one_line
from embedmill.model.canaries import read_canaries, write_canaries
from embedmill.model.names import CANARIES, CARD, TOKENIZER, check_names
from embedmill.model.recipe import Recipe

WEIGHTS = "weights.bin"
WEIGHTS_FP16 = "weights-fp16.bin"
# A bundle of another format is refused or, where the source is known, built anew.
FORMAT = 4

Flavour = Literal["fused", "unfused", "fused-fp16", "unfused-fp16"]


class Card(Struct, frozen=True, kw_only=True):
    """Content of `bundle.json`."""

    format: int
    name: str
    origin: str
    recipe: Recipe
    dim: Annotated[int, Meta(ge=1, le=1 << 20)]
    pad_id: Annotated[int, Meta(ge=0, lt=1 << 31)]
    # sha256 of the source's weights and tokenizer, to tell people what it was, and of each file of the bundle.
    weights: str
    tokenizer: str
    graphs: Annotated[dict[Flavour, Graph], Meta(min_length=1)]
    files: dict[str, str]


class Bundle(Struct, frozen=True, kw_only=True):
    """Open bundle."""

    folder: Path
    card: Card

    def model(self, config: TextTable, *, canaries: Canaries | None = None) -> Model:
        """Return the model for a job's text options.

        `canaries` replace the bundle's own. Raises ConfigError for an unknown prompt name, or more tokens than the
        model has positions for, and ModelError where the bundle has no canaries.
        """
        recipe, prompt = self.card.recipe, self._prompt(config)
        max_tokens = config.max_tokens or recipe.max_tokens
        if max_tokens > recipe.max_tokens:
            raise ConfigError(
                f"`text.max_tokens` = {max_tokens}, but {self.card.name} takes {recipe.max_tokens} at most; lower it or"
                " leave it out (`text.chunk_tokens` cuts longer texts into chunks)"
            )
        known = read_canaries(self.folder) if canaries is None else canaries
        if (dim := known.vectors.shape[1]) != self.card.dim:
            raise ModelError(
                f"{self.folder} has canaries of {dim} dimensions, and vectors of {self.card.dim}; add the model again"
            )
        return Model(
            name=self.card.name,
            identity=self._identity(prompt, max_tokens),
            folder=str(self.folder),
            files=self.card.files,
            graphs={str(flavour): graph for flavour, graph in self.card.graphs.items()},
            # An export may hold its weights inside the graph, so the largest file counts.
            weights_bytes=max(_size(self.folder / name) for name in self.card.files),
            canaries=known,
            tokenizer=TOKENIZER,
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
        # The files are those that compute, and are checked: what a card says of a source cannot be. The graphs of all
        # flavours count, as do pooling and normalisation in them, so that each flavour has the same identity. Canaries
        # differ by machine. Batch size, provider and threads are left out: an output may be resumed with others.
        parts = {
            "files": {name: sha256 for name, sha256 in self.card.files.items() if name != CANARIES},
            "graphs": {flavour: graph.file for flavour, graph in self.card.graphs.items()},
            "pad_id": self.card.pad_id,
            "lowercase": self.card.recipe.lowercase,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "dim": self.card.dim,
            "dtype": "float32",
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def open_bundle(folder: Path) -> Bundle:
    """Open a bundle without checking files (see `check_files`).

    Raises ModelError where `bundle.json` is missing, damaged, of another format, or lacks the sha256 of a loaded file.
    """
    try:
        card = msgspec.json.decode(read_regular(folder / CARD), type=Card)
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no model bundle; make one with `embedmill model add`") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / CARD} is damaged ({error}); add the model again") from error
    if card.format != FORMAT:
        raise ModelError(f"{folder} has bundle format {card.format}, this program needs {FORMAT}; add the model again")
    check_names(folder / CARD, (TOKENIZER, *(graph.file for graph in card.graphs.values())), card.files)
    # Of others' making, and shown in many places.
    shown = msgspec.structs.replace(card, name=one_line(card.name), origin=one_line(card.origin))
    return Bundle(folder=folder, card=shown)


def is_stale(folder: Path) -> bool:
    """Return True for a bundle in another version's format."""
    try:
        return bool(json.loads(read_regular(folder / CARD)).get("format") != FORMAT)
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def check_files(bundle: Bundle) -> None:
    """Verify every sha256; raise ModelError naming a file that differs."""
    path = first_mismatch(bundle.folder, bundle.card.files)
    if path is not None:
        raise ModelError(f"{path} is missing or damaged (sha256 differs); add the model again")


def add_canaries(bundle: Bundle, canaries: Canaries) -> Bundle:
    """Add canaries to a bundle; return the complete bundle."""
    path = write_canaries(bundle.folder, canaries)
    files = bundle.card.files | {path.name: sha256_of([path])}
    return write_card(bundle.folder, msgspec.structs.replace(bundle.card, files=files))


def write_card(folder: Path, card: Card) -> Bundle:
    """Write `bundle.json`; return the bundle.

    Raises ModelError for values that `open_bundle` would refuse.
    """
    data = msgspec.json.encode(card)
    try:
        msgspec.json.decode(data, type=Card)
    except msgspec.ValidationError as error:
        raise ModelError(f"{card.origin}: no model can have this: {error}; correct its configs") from error
    (folder / CARD).write_bytes(msgspec.json.format(data))
    return Bundle(folder=folder, card=card)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        # `check_files` reports a missing file by name.
        return 0
