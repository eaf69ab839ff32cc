"""Availability of providers on a machine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from embedmill.base.environment import versions_of
from embedmill.base.errors import DeviceError
from embedmill.engine import plugins
from embedmill.engine.catalogue.entry import Distribution, Provider
from embedmill.engine.catalogue.runtimes import RUNTIMES
from embedmill.engine.machine.machine import Machine
from embedmill.engine.runtime import ort


class Availability(Struct, frozen=True, kw_only=True):
    """Availability of a provider.

    `words` of `installed` is the package's version, of `installable` the exact command, of `elsewhere` the reason, of
    `replaced` (by another package of the runtime) the remedy.
    """

    state: Literal["installed", "installable", "elsewhere", "replaced"]
    words: str


def is_installed(provider: Provider) -> bool:
    """Tell if runtime or an installed plugin has the provider."""
    if (plugin := plugins.plugin_of(provider.ort)) is not None:
        return plugins.is_installed(plugin, provider.ort.name)
    return provider.ort.name in ort.get_available_providers()


def availability_of(provider: Provider, machine: Machine) -> Availability:
    """Find the availability of a provider, without a trial."""
    distribution = distribution_for(provider, machine)
    if machine.wsl and provider.wsl:
        return Availability(state="elsewhere", words=f"this is WSL{machine.wsl}: {provider.wsl}")
    if distribution is None:
        return Availability(state="elsewhere", words=_why_not(provider, machine))
    version = versions_of([distribution.package]).get(distribution.package)
    if is_installed(provider):
        # A build of ONNX Runtime may have a provider built in under another package name.
        words = f"{distribution.package} {version}" if version is not None else _built_in(provider)
        return Availability(state="installed", words=words)
    if (of_windows := _by_windows(provider)) is not None:
        return of_windows
    if version is not None and len(others := versions_of(RUNTIMES)) > 1:
        return Availability(state="replaced", words=_replaced(distribution.package, others))
    return Availability(state="installable", words=f"python -m pip {distribution.install}")


def _built_in(provider: Provider) -> str:
    plugin = plugins.plugin_of(provider.ort)
    return f"onnxruntime {ort.__version__}" if plugin is None else f"Windows ML, by {plugins.package_of(plugin)}"


def _by_windows(provider: Provider) -> Availability | None:
    """Find what Windows ML's catalogue says of an absent provider."""
    has_package = provider.ort.plugin is not None and provider.ort.plugin.module
    try:
        names = plugins.offered(provider.ort)
    except DeviceError as error:
        return None if has_package else Availability(state="elsewhere", words=str(error))
    if names is None:
        return None
    if provider.ort.name.lower() in names:
        words = "embedmill doctor --allow-provider-download lets Windows fetch it"
        return Availability(state="installable", words=words)
    if has_package:
        return None
    words = f"Windows ML has {', '.join(names) or 'nothing'} for this machine{', and not this' if names else ''}"
    return Availability(state="elsewhere", words=words)


def fetch_by_windows(provider: Provider, machine: Machine) -> None:
    """Let Windows fetch an absent provider. Raises DeviceError."""
    if distribution_for(provider, machine) is None or is_installed(provider):
        return
    if provider.ort.name.lower() in (plugins.offered(provider.ort) or []):
        plugins.fetch(provider.ort.name)


def replaced_providers(providers: Iterable[Provider], machine: Machine) -> list[str]:
    """Describe providers that another package took away, with remedies."""
    found = ((provider.name, availability_of(provider, machine)) for provider in providers)
    return [f"{name} is lost: {availability.words}" for name, availability in found if availability.state == "replaced"]


def _replaced(package: str, versions: dict[str, str]) -> str:
    others = [name for name in versions if name != package]
    listed = " and ".join(f"{name} {versions[name]}" for name in others)
    return (
        f"{listed} is installed over the files of {package} {versions[package]}; undo it:"
        f" python -m pip uninstall --yes {' '.join(others)};"
        f" python -m pip install --force-reinstall --no-deps {package}"
    )


def require(provider: Provider, machine: Machine) -> None:
    """Raise DeviceError with a remedy, unless the provider is installed."""
    found = availability_of(provider, machine)
    if found.state == "elsewhere":
        raise DeviceError(f"{provider.name} is not for this machine: {found.words}")
    if found.state == "replaced":
        raise DeviceError(f"{provider.name} is lost: {found.words}")
    if found.state == "installable":
        more = f"; {provider.note}" if provider.note else ""
        raise DeviceError(f"{provider.name} is not installed: {found.words}{more}")


def distribution_for(provider: Provider, machine: Machine) -> Distribution | None:
    """Find a provider's package for a machine, or None."""
    for distribution in provider.distributions:
        if distribution.system == machine.system and machine.architecture in distribution.architectures:
            return distribution
    return None


def _why_not(provider: Provider, machine: Machine) -> str:
    architectures: dict[str, list[str]] = {}
    for distribution in provider.distributions:
        architectures.setdefault(distribution.system, []).extend(distribution.architectures)
    places = ", ".join(f"{system} ({' or '.join(names)})" for system, names in architectures.items())
    more = f"; {provider.note}" if provider.note else ""
    return f"it exists for {places}, and this is {machine.system} ({machine.architecture}){more}"
