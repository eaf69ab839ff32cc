"""Catalogue of providers, the only place that names one."""

from __future__ import annotations

from collections.abc import Sequence

from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue.coreml import COREML
from embedmill.engine.catalogue.cpu import CPU
from embedmill.engine.catalogue.cuda import CUDA
from embedmill.engine.catalogue.directml import DIRECTML
from embedmill.engine.catalogue.entry import Provider
from embedmill.engine.catalogue.migraphx import MIGRAPHX
from embedmill.engine.catalogue.mlx import MLX
from embedmill.engine.catalogue.openvino import OPENVINO
from embedmill.engine.catalogue.qnn import QNN
from embedmill.engine.catalogue.tensorrt import TENSORRT
from embedmill.engine.catalogue.vitisai import VITISAI
from embedmill.engine.catalogue.webgpu import WEBGPU

# The CPU stays last: small jobs take the last provider without measuring.
PROVIDERS: tuple[Provider, ...] = (
    DIRECTML,
    QNN,
    WEBGPU,
    CUDA,
    TENSORRT,
    MIGRAPHX,
    VITISAI,
    OPENVINO,
    COREML,
    MLX,
    CPU,
)
AUTO = "auto"


def find_provider(name: str, providers: Sequence[Provider] = PROVIDERS) -> Provider:
    """Find a provider. Raises DeviceError listing the known names."""
    for provider in providers:
        if provider.name == name:
            return provider
    known = ", ".join([AUTO, *(provider.name for provider in providers)])
    raise DeviceError(f"there is no provider {name!r}; `engine.provider` (--provider) can be {known}")
