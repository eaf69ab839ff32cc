"""What an entry of the catalogue says. Data only: ONNX Runtime is not imported here."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

System = Literal["Windows", "Linux", "Darwin"]
Architecture = Literal["x86_64", "arm64"]
DeviceKind = Literal["cpu", "gpu", "npu"]
Precision = Literal["fp32", "fp16"]
Meaning = Literal["out of memory", "device lost", "driver too old"]


class Distribution(Struct, frozen=True, kw_only=True):
    """Where a provider exists: `package` is the distribution that carries it there, `install` the
    arguments of `python -m pip`, `architectures` those that have a wheel."""

    system: System
    architectures: tuple[Architecture, ...]
    package: str
    install: str


class Plugin(Struct, frozen=True, kw_only=True):
    """A provider in a library of its own: `module` has `get_library_path()`."""

    module: str


class GraphChoice(Struct, frozen=True, kw_only=True):
    """The graph of the bundle that a precision runs, the least canary cosine it must hold, and provider
    options that it needs."""

    graph: Literal["fused", "unfused", "fused-fp16", "unfused-fp16"]
    floor: float
    options: dict[str, str] = {}


class Exact(Struct, frozen=True, tag=True, kw_only=True):
    """Shapes as the packer finds them: any batch whose padded tokens stay within a budget."""

    budget_tokens: int


class Ladder(Struct, frozen=True, tag=True, kw_only=True):
    """A few fixed shapes, one session each: per sequence the power of two of rows that fills the budget.

    `most_rows` bounds the batch of short sequences. Each session may hold weights of its own; all of
    them together stay below `weights_bytes`.
    """

    budget_tokens: int
    sequences: tuple[int, ...]
    most_rows: int
    weights_bytes: int = 2 << 30


class Fault(Struct, frozen=True, kw_only=True):
    """A code by which a failure is known; drivers translate their words, so words are never matched."""

    pattern: str
    meaning: Meaning


class DeviceChoice(Struct, frozen=True, kw_only=True):
    """How a device is named to a provider that takes it as an option.

    `option` receives the device metadata `metadata`; `rank` is the metadata by which the system ranks
    devices, the most powerful with the least number; `default` are the options where no device is listed.
    """

    option: str
    metadata: str
    rank: str = ""
    default: dict[str, str] = {}


class Provider(Struct, frozen=True, kw_only=True):
    """One execution provider.

    name, drives     what users call it, and what it runs on
    ort_name         ONNX Runtime's name
    distributions            systems and architectures where it exists; `note` adds what a user elsewhere must know,
                     `wsl` why it cannot work under WSL2, wheel or not
    plugin           None where it is built into the package that brings ONNX Runtime
    kinds            device kinds it was made for, the preferred first; on another kind it is emulated
    precisions       graph and floor by precision, the default first
    opset            the highest opset of ONNX whose operators it knows; None: that of the runtime
    shapes           shape policy
    session          session config entries; `options` provider options, `emulated` more of them on emulated devices
    runs             cores: batches side by side, one per core; one: one at a time per session;
                     adapter: one at a time per adapter, opening sessions included
    strict           no node may fall to the CPU, except operators in `on_cpu`
    memory_limit     the provider option that takes `engine.memory_bytes`
    memory           who reports the device's memory; vendor: whoever does for the maker of the GPU
    faults           codes of known failures, beside those of the runtime itself (`runtimes.FAULTS`)
    preload          the libraries it needs lie in Python packages and are loaded first
    compiled         sessions compile to a context that is kept and loaded again
    apart            a run's sessions are in a process of their own: one whose device is lost, or whose driver
                     crashes or hangs, is followed by a new one
    bound            inputs and outputs are bound, so that nothing else is copied
    """

    name: str
    drives: str
    ort_name: str
    distributions: tuple[Distribution, ...]
    kinds: tuple[DeviceKind, ...]
    precisions: dict[Precision, GraphChoice]
    shapes: Exact | Ladder
    runs: Literal["cores", "one", "adapter"]
    memory: Literal["host", "nvml", "amdgpu", "dxgi", "vendor", "unknown"]
    note: str = ""
    wsl: str = ""
    opset: int | None = None
    plugin: Plugin | None = None
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
    apart: bool = True
    bound: bool = False
