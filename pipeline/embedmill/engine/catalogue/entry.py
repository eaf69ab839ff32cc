"""Types of catalogue entries. Pure data, without ONNX Runtime."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from embedmill.base.errors import DeviceError

System = Literal["Windows", "Linux", "Darwin"]
Architecture = Literal["x86_64", "arm64"]
DeviceKind = Literal["cpu", "gpu", "npu"]
Precision = Literal["fp32", "fp16"]
Meaning = Literal["out of memory", "device lost", "driver too old"]
MemoryKind = Literal["host", "nvml", "amdgpu", "dxgi", "vendor", "unknown"]


class Distribution(Struct, frozen=True, kw_only=True):
    """Package of a provider for one system, for `architectures`."""

    system: System
    architectures: tuple[Architecture, ...]
    package: str
    # Those of `pip install`, where the package's name is not enough.
    arguments: str = ""

    @property
    def install(self) -> str:
        """Return the arguments of `pip` that install the package."""
        return f"install {self.arguments or self.package}"


class Plugin(Struct, frozen=True, kw_only=True):
    """Plugin library of a provider.

    module       Python package that brings it; empty: none does
    path         the package's function that returns its path
    windows_ml   Windows 11 keeps one too, in the catalogue of Windows ML
    """

    module: str = ""
    path: str = "get_library_path"
    windows_ml: bool = False


class GraphChoice(Struct, frozen=True, kw_only=True):
    """Graph, least canary cosine and provider options of a precision."""

    graph: Literal["fused", "unfused", "fused-fp16", "unfused-fp16"]
    floor: float
    options: dict[str, str] = {}


class Exact(Struct, frozen=True, tag=True, kw_only=True):
    """Shape policy: any batch with padded tokens within a budget."""

    budget_tokens: int


class Ladder(Struct, frozen=True, tag=True, kw_only=True):
    """Shape policy: a few fixed shapes with one session each.

    Per sequence, rows are the power of two that fills the budget, `most_rows` at most. Each session may hold weights of
    its own, all together below `weights_bytes`.
    """

    budget_tokens: int
    sequences: tuple[int, ...]
    most_rows: int
    weights_bytes: int = 2 << 30


class Fault(Struct, frozen=True, kw_only=True):
    """Error code of a known failure."""

    # A pattern of codes, not of words, which drivers translate.
    pattern: str
    meaning: Meaning


class DeviceChoice(Struct, frozen=True, kw_only=True):
    """Provider option that names a device.

    `option` receives the device metadata `metadata`; `rank` is the metadata by which the system ranks
    devices, the most powerful with the least number; `default` are the options where no device is listed.
    """

    option: str
    metadata: str
    rank: str = ""
    default: dict[str, str] = {}


class OnnxRuntime(Struct, frozen=True, tag=True, kw_only=True):
    """Endpoint: an execution provider of ONNX Runtime.

    name             ONNX Runtime's name
    plugin           None where the package that brings ONNX Runtime has the provider built in
    opset            highest opset of ONNX with known operators; None: that of the runtime
    device           how a device is named to the provider; None: by the runtime's own list
    session          session config entries; `options` provider options, `emulated` more options on emulated devices
    memory_pattern   whether the runtime may plan memory ahead
    strict           no node may fall to the CPU, except operators in `on_cpu`
    memory_limit     provider option for `engine.memory_bytes`
    faults           codes of known failures, beside those of the runtime itself (`runtimes.FAULTS`)
    preload          libraries lie in Python packages and are loaded first
    compiled         sessions compile to a context that is cached and loaded again
    bound            inputs and outputs are bound, so that nothing else is copied
    isolated         sessions of a run get a process of their own, replaced when a device is lost or a driver
                     crashes or hangs
    """

    name: str
    plugin: Plugin | None = None
    opset: int | None = None
    device: DeviceChoice | None = None
    session: dict[str, str] = {}
    options: dict[str, str] = {}
    emulated: dict[str, str] = {}
    memory_pattern: bool = True
    strict: bool = True
    on_cpu: frozenset[str] = frozenset()
    memory_limit: str | None = None
    faults: tuple[Fault, ...] = ()
    preload: bool = False
    compiled: bool = False
    bound: bool = False
    isolated: bool = True


class Bridge(Struct, frozen=True, tag=True, kw_only=True):
    """Endpoint: an embedmill worker on another host."""


class Cloud(Struct, frozen=True, tag=True, kw_only=True):
    """Endpoint: an embedding service, paid by use."""


class Provider(Struct, frozen=True, kw_only=True):
    """Catalogue entry: facts of every provider, and one endpoint.

    name, drives     what users call the provider, and what computes there
    endpoint         where batches go
    distributions    systems and architectures with a package; `note` adds what a user elsewhere must know,
                     `wsl` why WSL2 is out, wheel or not
    kinds            device kinds in order of preference; any other kind is emulated
    precisions       graph and floor by precision, the default first
    shapes           shape policy
    runs             cores: batches side by side, one per core; one: one at a time per session;
                     adapter: one at a time per adapter, opening sessions included
    memory           source of memory readings; vendor: that of the GPU's maker
    """

    name: str
    drives: str
    endpoint: OnnxRuntime | Bridge | Cloud
    distributions: tuple[Distribution, ...]
    kinds: tuple[DeviceKind, ...]
    precisions: dict[Precision, GraphChoice]
    shapes: Exact | Ladder
    runs: Literal["cores", "one", "adapter"]
    memory: MemoryKind
    note: str = ""
    wsl: str = ""

    def memory_of(self, kind: DeviceKind | None) -> MemoryKind:
        """Return the memory that a kind of device uses."""
        # A provider for several kinds of devices (OpenVINO) uses system memory when it runs on the processor.
        return "host" if kind == "cpu" else self.memory

    @property
    def ort(self) -> OnnxRuntime:
        """Return the ONNX Runtime endpoint. Raises DeviceError for another."""
        if isinstance(self.endpoint, OnnxRuntime):
            return self.endpoint
        raise DeviceError(f"{self.name} does not compute through ONNX Runtime on this machine")
