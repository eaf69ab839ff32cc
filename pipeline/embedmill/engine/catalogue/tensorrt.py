"""TensorRT for RTX: NVIDIA RTX GPUs, Ampere and later.

Facts: the package's own page, and NVIDIA's reference of its provider options.
"""

from embedmill.engine.catalogue.entry import DeviceChoice, Fault, GraphChoice, Ladder, OnnxRuntime, Plugin, Provider
from embedmill.engine.catalogue.runtimes import distributions

TENSORRT = Provider(
    name="tensorrt",
    drives="NVIDIA RTX GPUs (TensorRT for RTX)",
    endpoint=OnnxRuntime(
        name="NvTensorRTRTXExecutionProvider",
        plugin=Plugin(module="onnxruntime_ep_nv_tensorrt_rtx", windows_ml=True),
        device=DeviceChoice(option="device_id", metadata="device_id"),
        faults=(
            Fault(pattern=r"CUDA (failure|error) 2\b", meaning="out of memory"),
            Fault(pattern=r"CUDA (failure|error) (46|700|719)\b", meaning="device lost"),
            Fault(pattern=r"CUDA (failure|error) 35\b", meaning="driver too old"),
        ),
    ),
    distributions=distributions("onnxruntime-ep-nv-tensorrt-rtx", ("Linux", "Windows"), ("x86_64",)),
    note="it needs an NVIDIA driver for CUDA 13",
    kinds=("gpu",),
    precisions={
        "fp32": GraphChoice(graph="unfused", floor=0.99999),
        "fp16": GraphChoice(graph="unfused-fp16", floor=0.999),
    },
    # An engine is built for each shape.
    shapes=Ladder(budget_tokens=16384, sequences=(32, 64, 128, 256, 512), most_rows=512),
    runs="one",
    memory="nvml",
)
