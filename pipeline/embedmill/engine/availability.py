"""Where a provider stands on this machine: installed, to be installed, or not for it; and what to say of it."""

from __future__ import annotations

from importlib import metadata, util
from typing import Literal

import onnxruntime as ort
from msgspec import Struct

from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue.entry import Distribution, Provider
from embedmill.engine.machine.machine import Machine


class Availability(Struct, frozen=True, kw_only=True):
    """`installed`: it can be tried; `installable`: `words` is the exact line; `elsewhere`: `words` says why."""

    provider: str
    state: Literal["installed", "installable", "elsewhere"]
    words: str


def availability_of(provider: Provider, machine: Machine) -> Availability:
    """What the catalogue, the machine and the installed packages say; nothing is tried."""
    distribution = distribution_for(provider, machine)
    if machine.wsl and provider.wsl:
        return Availability(
            provider=provider.name, state="elsewhere", words=f"this is WSL{machine.wsl}: {provider.wsl}"
        )
    if distribution is None:
        return Availability(provider=provider.name, state="elsewhere", words=_why_not(provider, machine))
    if is_installed(provider):
        return Availability(provider=provider.name, state="installed", words=_version(distribution.package))
    return Availability(provider=provider.name, state="installable", words=f"python -m pip {distribution.install}")


def is_installed(provider: Provider) -> bool:
    """Whether the runtime or its plugin is there to be tried."""
    if provider.ort.plugin is not None:
        return util.find_spec(provider.ort.plugin.module) is not None
    return provider.ort.name in ort.get_available_providers()


def require(provider: Provider, machine: Machine) -> None:
    """Raises DeviceError that says what to do on this machine, where the provider cannot be tried."""
    found = availability_of(provider, machine)
    if found.state == "elsewhere":
        raise DeviceError(f"{provider.name} is not for this machine: {found.words}")
    if found.state == "installable":
        more = f"; {provider.note}" if provider.note else ""
        raise DeviceError(f"{provider.name} is not installed: {found.words}{more}")


def distribution_for(provider: Provider, machine: Machine) -> Distribution | None:
    """How the provider comes to this machine; None where it does not."""
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


def _version(package: str) -> str:
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"onnxruntime {ort.__version__}"
