"""Mesa's software Vulkan (lavapipe), unpacked from Debian packages into a folder; nothing is installed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

PACKAGES = ("libvulkan1", "mesa-vulkan-drivers")
# Bookworm's own Mesa (22.3) lacks what Dawn needs; its backports have 25.0 or later.
_NEWER = {"bookworm": "bookworm-backports"}


def prepare(folder: Path) -> dict[str, str]:
    """The environment variables under which Vulkan finds lavapipe and nothing else; packages are fetched once.

    Raises SystemExit with the remedy where this is no Debian-like machine.
    """
    root = folder / "root"
    if not (root / "complete").is_file():
        _unpack(_download(folder), root)
    library = next(root.rglob("libvulkan_lvp.so"))
    driver = folder / "lavapipe.json"
    driver.write_text(
        json.dumps({"file_format_version": "1.0.0", "ICD": {"library_path": str(library), "api_version": "1.3.0"}})
    )
    inherited = os.environ.get("LD_LIBRARY_PATH")
    return {
        "LD_LIBRARY_PATH": f"{library.parent}:{inherited}" if inherited else str(library.parent),
        "VK_DRIVER_FILES": str(driver),
        "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1",
    }


def _download(folder: Path) -> list[Path]:
    """The packages and what they need beyond this system's own, by apt with lists and cache of its own."""
    if shutil.which("apt-get") is None:
        raise SystemExit("the WebGPU proof unpacks Debian packages with apt-get, which is not here; run it on Debian")
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    suite = _NEWER.get(codename, codename)
    lines = [f"deb {uri} {name} main\n" for uri in _mirrors(codename) for name in sorted({suite, codename})]
    (folder / "sources.list").write_text("".join(lines))
    apt = ["apt-get", "--quiet", "--quiet", "--yes", *_options(folder)]
    subprocess.run([*apt, "update"], check=True)
    install = ["install", "--download-only", "--reinstall", "--no-install-recommends", "--target-release", suite]
    subprocess.run([*apt, *install, *PACKAGES], check=True)
    return sorted((folder / "cache/archives").glob("*.deb"))


def _options(folder: Path) -> list[str]:
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
    }
    return [word for key, value in settings.items() for word in ("--option", f"{key}={value}")]


def _mirrors(codename: str) -> list[str]:
    """The mirrors of this machine's own suite."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT) $(CODENAME)", "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {line.split()[0] for line in told.splitlines() if line.split()[1:] == ["main", codename]}
    if not found:
        raise SystemExit("apt knows no mirror of this system's suite; run `apt-get update` first")
    return sorted(found)


def _unpack(archives: list[Path], root: Path) -> None:
    for archive in archives:
        subprocess.run(["dpkg-deb", "--extract", str(archive), str(root)], check=True)
    (root / "complete").touch()
