"""The providers as data: one entry each, the preferred first. Nothing else names one."""

from __future__ import annotations

from pipeline.engine.catalogue.coreml import COREML
from pipeline.engine.catalogue.cpu import CPU
from pipeline.engine.catalogue.cuda import CUDA
from pipeline.engine.catalogue.directml import DIRECTML
from pipeline.engine.catalogue.entry import Provider
from pipeline.engine.catalogue.openvino import OPENVINO
from pipeline.engine.catalogue.qnn import QNN
from pipeline.engine.catalogue.webgpu import WEBGPU
from pipeline.errors import DeviceError

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
