"""Start of runners, in this process or a host process."""

from __future__ import annotations

from collections.abc import Callable

from embedmill.base.errors import DeviceError, DeviceLost
from embedmill.engine.catalogue.entry import OnnxRuntime, Provider
from embedmill.engine.devices import Device, devices_of
from embedmill.engine.runners.base import ATTEMPTS, Runner, RunnerOptions
from embedmill.engine.runners.client import DEVICES_S, HostClient
from embedmill.engine.runners.local import open_local
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.spec import EngineSpec

_DEFAULT = RunnerOptions()


def runner_for(spec: EngineSpec, options: RunnerOptions = _DEFAULT, *, notify: Callable[[str], None]) -> Runner:
    """Start a runner by the kind of the provider's endpoint.

    `notify` gets a sentence when batches shrink or grow, and when a device was lost. Raises DeviceError where the
    provider cannot run the model's graph, or runs it wrongly; a process of its own says so at the first batch.
    """
    match spec.target.provider.endpoint:
        case OnnxRuntime(isolated=False):
            return open_local(spec, options, notify)
        case OnnxRuntime():
            return ProcessRunner(spec, options, notify)
        case endpoint:
            raise DeviceError(f"{spec.target.provider.name}: no runner reaches a {type(endpoint).__name__.lower()} yet")


def list_devices(provider: Provider, *, timeout_s: float = DEVICES_S, attempts: int = ATTEMPTS) -> list[Device]:
    """List a provider's devices in the runtime's order. Raises DeviceError."""
    if not provider.ort.isolated:
        return devices_of(provider)
    # A plugin library may crash or hang while it loads: only its own process, and a new one tries again.
    for attempt in range(1, attempts + 1):
        try:
            with HostClient() as host:
                return host.devices(provider, timeout_s=timeout_s)
        except DeviceLost as lost:
            if attempt == attempts:
                raise DeviceLost(
                    f"{provider.name} was lost {attempts} times in a row while its devices were listed, each time in a"
                    f" new process: {lost}; choose another --provider, or see `embedmill doctor`"
                ) from lost
    return []
