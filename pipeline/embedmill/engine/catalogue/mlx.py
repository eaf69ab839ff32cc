"""MLX: GPUs of Apple machines.

Facts: the package's own page.
"""

from embedmill.engine.catalogue.entry import GraphChoice, Ladder, OnnxRuntime, Plugin, Provider
from embedmill.engine.catalogue.runtimes import distributions

MLX = Provider(
    name="mlx",
    drives="GPUs of Apple machines (MLX)",
    endpoint=OnnxRuntime(
        name="MLXExecutionProvider",
        plugin=Plugin(module="onnxruntime_ep_mlx", path="library_path"),
    ),
    distributions=distributions("onnxruntime-ep-mlx", ("Darwin",), ("arm64",)),
    note="it needs macOS 14 and ONNX Runtime 1.31",
    kinds=("gpu",),
    precisions={
        "fp32": GraphChoice(graph="unfused", floor=0.99999),
        "fp16": GraphChoice(graph="unfused-fp16", floor=0.999),
    },
    shapes=Ladder(budget_tokens=8192, sequences=(32, 64, 128, 256, 512), most_rows=256),
    runs="adapter",
    memory="host",
)
