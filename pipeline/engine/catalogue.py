"""The providers as data: what each is called, which graph it wants, how it runs. Nothing else names one."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pipeline.errors import DeviceError


class Provider(Struct, frozen=True, kw_only=True):
    """One execution provider.

    `ort_name` is ONNX Runtime's; `graph` the flavour of the bundle it runs; `streams` says how many
    batches may run at the same time: one per usable core, or one.
    """

    name: str
    ort_name: str
    graph: Literal["fused", "unfused"]
    streams: Literal["cores", "one"]


PROVIDERS = (Provider(name="cpu", ort_name="CPUExecutionProvider", graph="fused", streams="cores"),)
AUTO = "auto"


def choose_provider(name: str) -> Provider:
    """The entry of a name; `auto` is the first. Raises DeviceError that lists what there is."""
    if name == AUTO:
        return PROVIDERS[0]
    for provider in PROVIDERS:
        if provider.name == name:
            return provider
    known = ", ".join([AUTO, *(provider.name for provider in PROVIDERS)])
    raise DeviceError(f"there is no provider {name!r}; `engine.provider` (--provider) can be {known}")
