"""WebGPU: GPUs through Vulkan, Direct3D 12 or Metal."""

from embedmill.engine.catalogue.entry import Fault, GraphChoice, Ladder, OnnxRuntime, Plugin, Provider
from embedmill.engine.catalogue.runtimes import distributions

WEBGPU = Provider(
    name="webgpu",
    drives="GPUs through Vulkan, Direct3D 12 or Metal",
    endpoint=OnnxRuntime(
        name="WebGpuExecutionProvider",
        plugin=Plugin(module="onnxruntime_ep_webgpu"),
        # Else token ids and the lookup of their embeddings stay on the CPU.
        options={"enableInt64": "1"},
        faults=(
            Fault(pattern=r"VK_ERROR_OUT_OF_(DEVICE|HOST)_MEMORY|8007000E", meaning="out of memory"),
            Fault(pattern=r"VK_ERROR_DEVICE_LOST|887A000[567]", meaning="device lost"),
            Fault(pattern=r"VK_ERROR_INCOMPATIBLE_DRIVER|887A0004", meaning="driver too old"),
        ),
    ),
    distributions=(
        *distributions("onnxruntime-ep-webgpu", ("Linux", "Windows"), ("x86_64", "arm64")),
        *distributions("onnxruntime-ep-webgpu", ("Darwin",), ("arm64",)),
    ),
    note="on Linux it needs libvulkan.so.1 and a Vulkan driver",
    kinds=("gpu",),
    # Attention with a mask has no kernel there (microsoft/onnxruntime pull request 26766).
    precisions={
        "fp32": GraphChoice(graph="unfused", floor=0.99999),
        "fp16": GraphChoice(graph="unfused-fp16", floor=0.999),
    },
    shapes=Ladder(budget_tokens=8192, sequences=(32, 64, 128, 256, 512), most_rows=256),
    # All sessions share one Dawn device: two at once corrupted the heap (onnxruntime-ep-webgpu 0.4.0).
    runs="adapter",
    memory="vendor",
)
