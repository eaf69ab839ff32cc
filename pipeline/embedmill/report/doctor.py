"""Result of the doctor, and the text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from embedmill.report.units import size

if TYPE_CHECKING:
    from embedmill.engine.machine.adapters import Adapter
    from embedmill.engine.machine.machine import Machine
    from embedmill.tune.trial import Measurement

State = Literal["works", "fails", "installable", "elsewhere", "replaced"]

_WIDTH = 110
_STATES = {
    "works": "works",
    "fails": "installed, but fails",
    "installable": "can be installed",
    "elsewhere": "not for this machine",
    "replaced": "lost",
}


class Finding(Struct, frozen=True, kw_only=True):
    """State of one provider on this machine."""

    provider: str
    drives: str
    note: str  # further requirements
    state: State
    words: str  # the reason with the remedy, or the install line
    trials: list[Measurement] = []  # one per precision that was tried


class DoctorResult(Struct, frozen=True, kw_only=True):
    """Result of the doctor.

    `unseen` lists failed queries for adapters, `runtimes` the installed packages of ONNX Runtime.
    """

    machine: Machine
    adapters: list[Adapter]
    unseen: list[str]
    runtimes: list[str]
    model: str
    findings: list[Finding]


def doctor_summary(found: DoctorResult) -> str:
    """Describe the machine, the adapters and the providers."""
    return "\n".join([*_machine(found.machine), *_adapters(found), *_runtimes(found.runtimes), "", *_findings(found)])


def _machine(machine: Machine) -> Iterator[str]:
    wsl = f", WSL{machine.wsl}" if machine.wsl else ""
    # Python for x64 runs emulated on Windows for ARM, where the NPU needs a native one.
    emulated = machine.native_architecture not in ("", machine.architecture)
    native = f" (emulated on {machine.native_architecture})" if emulated else ""
    yield f"system      {machine.name} ({machine.system} {machine.release}), {machine.architecture}{native}{wsl}"
    yield f"python      {machine.python}"
    cores = f"{machine.usable_cores} cores usable of {machine.logical_cores or 'unknown'}"
    yield f"processor   {machine.cpu or 'unknown'}: {cores}"
    if machine.cpu_features:
        yield f"            {' '.join(machine.cpu_features)}"
    bounds = {"control group": machine.cgroup_limit_bytes, "address space": machine.address_space_limit_bytes}
    limits = [f"{name} {size(value)}" for name, value in bounds.items() if value is not None]
    free = "" if machine.available_bytes is None else f", {size(machine.available_bytes)} available"
    total = "unknown" if machine.ram_bytes is None else size(machine.ram_bytes)
    yield f"memory      {total}{free}{'; limits: ' + ', '.join(limits) if limits else ''}"


def _adapters(found: DoctorResult) -> Iterator[str]:
    # One line per interface that reports an adapter: what differs between them helps to find a fault.
    for number, adapter in enumerate(found.adapters):
        memory = f", {size(adapter.memory_bytes)}" if adapter.memory_bytes else ""
        # None: the interface does not report it.
        integrated = {True: "integrated ", False: "discrete ", None: ""}
        kind = integrated[adapter.integrated] + adapter.kind
        yield f"{'adapters' if number == 0 else '':<12}{adapter.name} ({kind}{memory}; reported by {adapter.seen_by})"
    if not found.adapters:
        yield "adapters    no GPU or NPU"
    for number, reason in enumerate(found.unseen):
        yield f"{'not read' if number == 0 else '':<12}{reason}"


def _runtimes(names: list[str]) -> Iterator[str]:
    shared = "; they share their files, and the last one installed is used: keep one" if len(names) > 1 else ""
    yield f"runtime     {', '.join(names) or 'none'}{shared}"


def _findings(found: DoctorResult) -> Iterator[str]:
    yield f"{'provider':<10} {'state':<21} (tried with {found.model})"
    for finding in found.findings:
        yield f"{finding.provider:<10} {_STATES[finding.state]:<21} {finding.drives}"
        for trial in finding.trials:
            yield from _wrapped(_trial(trial))
        yield from _wrapped(_devices(finding.trials))
        if finding.state == "installable":
            yield f"{'':<11}{finding.words}"
            yield from _wrapped(finding.note)
        elif not finding.trials:
            yield from _wrapped(finding.words)


def _devices(trials: list[Measurement]) -> str:
    """List the values of --device, where several exist."""
    devices = trials[0].devices if trials else []
    if len(devices) < 2:
        return ""
    return "devices: " + "; ".join(f"{device.index}: {device.label} ({device.kind})" for device in devices)


def _trial(trial: Measurement) -> str:
    if not trial.works:
        return f"{trial.precision}: {trial.words}"
    where = trial.device.label if trial.device is not None else "its only device"
    nodes = f"nodes placed {trial.nodes_placed}/{trial.nodes}" if trial.nodes else "nodes placed unknown"
    return (
        f"{trial.precision} on {where}: {trial.documents_per_s:.1f} documents/s,"
        f" canary cosine {trial.canary_cosine:.7f}, {nodes}"
    )


def _wrapped(text: str) -> list[str]:
    """Wrap text below the name of a provider."""
    return textwrap.wrap(text, _WIDTH, initial_indent=" " * 11, subsequent_indent=" " * 11, break_long_words=False)
