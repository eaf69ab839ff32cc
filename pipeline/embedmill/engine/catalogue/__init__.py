"""The providers as data: one entry each, the preferred first. Nothing else names one."""

from __future__ import annotations

from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue.coreml import COREML
from embedmill.engine.catalogue.cpu import CPU
from embedmill.engine.catalogue.cuda import CUDA
from embedmill.engine.catalogue.directml import DIRECTML
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.catalogue.openvino import OPENVINO
from embedmill.engine.catalogue.qnn import QNN
from embedmill.engine.catalogue.webgpu import WEBGPU

# The bridge to a Windows host and the cloud endpoint will stand here too.
PROVIDERS: tuple[Provider, ...] = (DIRECTML, QNN, WEBGPU, CUDA, OPENVINO, COREML, CPU)
AUTO = "auto"


def find_provider(name: str) -> Provider:
    """The entry of a name. Raises DeviceError that lists what there is."""
    for provider in PROVIDERS:
        if provider.name == name:
            return provider
    known = ", ".join([AUTO, *(provider.name for provider in PROVIDERS)])
    raise DeviceError(f"there is no provider {name!r}; `engine.provider` (--provider) can be {known}")
