"""Availability of providers on a machine."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import util
from typing import Literal

from msgspec import Struct

from embedmill.base.environment import versions_of
from embedmill.base.errors import DeviceError
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
    if provider.ort.plugin is not None:
        # Without an import, for a plugin may load its driver and crash.
        return util.find_spec(provider.ort.plugin.module) is not None
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
        words = f"onnxruntime {ort.__version__}" if version is None else f"{distribution.package} {version}"
        return Availability(state="installed", words=words)
    if version is not None and len(others := versions_of(RUNTIMES)) > 1:
        return Availability(state="replaced", words=_replaced(distribution.package, others))
    return Availability(state="installable", words=f"python -m pip {distribution.install}")


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
