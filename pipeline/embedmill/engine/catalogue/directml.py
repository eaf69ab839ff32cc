"""DirectML: GPUs of Windows machines with a Direct3D 12 driver.

Facts without another source: ONNX Runtime's own (core/providers/dml), and the DirectML page of its documentation.
"""

from embedmill.engine.catalogue.entry import DeviceChoice, Fault, GraphChoice, Ladder, OnnxRuntime, Provider
from embedmill.engine.catalogue.runtimes import WINDOWS

DIRECTML = Provider(
    name="directml",
    drives="GPUs under Windows (Direct3D 12)",
    endpoint=OnnxRuntime(
        name="DmlExecutionProvider",
        device=DeviceChoice(
            option="device_id",
            metadata="DxgiAdapterNumber",
            # Adapter 0 may be the integrated GPU or a software one.
            rank="DxgiHighPerformanceIndex",
            default={"performance_preference": "high_performance"},
        ),
        opset=20,
        memory_pattern=False,
        faults=(
            Fault(pattern="8007000E", meaning="out of memory"),
            # DXGI_ERROR_DEVICE_REMOVED, _HUNG, _RESET and _DRIVER_INTERNAL_ERROR.
            Fault(pattern="887A000[567]|887A0020", meaning="device lost"),
            Fault(pattern="887A0004", meaning="driver too old"),
        ),
    ),
    distributions=WINDOWS,
    note="DirectML is part of Windows; no wheel brings it to another system",
    wsl="no wheel can bring it inside WSL2: run embedmill on the Windows side (README.md has its three lines)",
    kinds=("gpu", "npu"),
    precisions={
        "fp32": GraphChoice(graph="fused", floor=0.99999),
        "fp16": GraphChoice(graph="fused-fp16", floor=0.999),
    },
    # A kernel caches its first shape only, and buffers are rounded up to powers of two.
    shapes=Ladder(budget_tokens=16384, sequences=(32, 64, 128, 256, 512), most_rows=512),
    runs="adapter",
    memory="dxgi",
)
