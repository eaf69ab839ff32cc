"""Plugin libraries of packages and of Windows ML's catalogue.

Windows 11 (24H2) keeps and updates providers of its own. Microsoft's package `windowsml` lists them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import util
from typing import Any

from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue.entry import OnnxRuntime, Plugin
from embedmill.engine.catalogue.runtimes import WINDOWS_ML_PACKAGE
from embedmill.engine.runtime import ort

_ABSENT = "NotPresent"


def plugin_of(endpoint: OnnxRuntime) -> Plugin | None:
    """Return a provider's plugin, or None if built in."""
    plugin = endpoint.plugin
    built_in = plugin is not None and not plugin.module and endpoint.name in ort.get_available_providers()
    return None if built_in else plugin


def package_of(plugin: Plugin) -> str:
    """Return the package that leads to a plugin's library."""
    return WINDOWS_ML_PACKAGE if _is_of_windows(plugin) else plugin.module.replace("_", "-")


def is_installed(plugin: Plugin, name: str) -> bool:
    """Return whether a package or Windows has a plugin."""
    if _has_package(plugin):
        return True
    try:
        return plugin.windows_ml and _states().get(name.lower(), False)
    except DeviceError:
        return False


def library_of(plugin: Plugin, name: str) -> str:
    """Return the path of a plugin's library. Raises DeviceError."""
    if _is_of_windows(plugin):
        if not is_installed(plugin, name):
            raise DeviceError(f"{name}: Windows has it no more; `embedmill doctor` says how to get it")
        return _made_ready(name)
    try:
        library: str = getattr(importlib.import_module(plugin.module), plugin.path)()
    except (ImportError, OSError) as error:
        raise DeviceError(f"{name}: {plugin.module} cannot be imported ({error})") from error
    return library


def offered(endpoint: OnnxRuntime) -> list[str] | None:
    """List what Windows ML has for this machine. Raises DeviceError.

    None without the package, and for plugins that Windows ML never has.
    """
    is_of_catalogue = endpoint.plugin is not None and endpoint.plugin.windows_ml
    return list(_states()) if is_of_catalogue and _has_windows_ml() else None


def fetch(name: str) -> None:
    """Let Windows fetch a provider. Raises DeviceError."""
    _made_ready(name)
    _states.cache_clear()


def _is_of_windows(plugin: Plugin) -> bool:
    return plugin.windows_ml and not _has_package(plugin)


def _has_package(plugin: Plugin) -> bool:
    # Without an import, for a plugin may load its driver and crash.
    return bool(plugin.module) and util.find_spec(plugin.module) is not None


def _has_windows_ml() -> bool:
    return util.find_spec(WINDOWS_ML_PACKAGE) is not None


@cache
def _states() -> dict[str, bool]:
    """Map names to False where Windows would fetch first."""
    if not _has_windows_ml():
        return {}
    with _catalogue() as providers:
        return {name: provider.ready_state.name != _ABSENT for name, provider in providers.items()}


def _made_ready(name: str) -> str:
    # Windows fetches what is absent, and adds to this process what is present.
    with _catalogue() as providers:
        try:
            provider = providers[name.lower()]
            provider.ensure_ready()
            library: str = provider.library_path
        except (KeyError, OSError) as error:
            raise DeviceError(
                f"{name}: Windows cannot make it ready ({error}); update Windows and try again"
            ) from error
    return library


@contextmanager
def _catalogue() -> Iterator[dict[str, Any]]:
    """Open the catalogue; yield providers by lower-case name."""
    # Its names differ from those of the runtime in capitals.
    try:
        opened = importlib.import_module(WINDOWS_ML_PACKAGE).EpCatalog()
        found = {provider.name.lower(): provider for provider in opened.find_all_providers()}
    except (ImportError, AttributeError, OSError) as error:
        raise DeviceError(
            f"the catalogue of Windows ML cannot be read ({error}); it needs Windows 11, version 24H2 or later"
        ) from error
    with opened:
        yield found
