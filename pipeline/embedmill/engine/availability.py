"""Availability of providers on a machine."""

from __future__ import annotations

from importlib import util
from typing import Literal

import onnxruntime as ort
from msgspec import Struct

from embedmill.base.environment import versions_of
from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue.entry import Distribution, Provider
from embedmill.engine.machine.machine import Machine


class Availability(Struct, frozen=True, kw_only=True):
    """Availability of a provider.

    `words` of `installed` is the package's version, of `installable` the exact command, of `elsewhere` the reason.
    """

    state: Literal["installed", "installable", "elsewhere"]
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
    if is_installed(provider):
        # A build of ONNX Runtime may have a provider built in under another package name.
        version = versions_of([distribution.package]).get(distribution.package)
        words = f"onnxruntime {ort.__version__}" if version is None else f"{distribution.package} {version}"
        return Availability(state="installed", words=words)
    return Availability(state="installable", words=f"python -m pip {distribution.install}")


def require(provider: Provider, machine: Machine) -> None:
    """Raise DeviceError with a remedy, unless the provider is installed."""
    found = availability_of(provider, machine)
    if found.state == "elsewhere":
        raise DeviceError(f"{provider.name} is not for this machine: {found.words}")
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
