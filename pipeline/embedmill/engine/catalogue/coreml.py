"""Core ML: GPU and Neural Engine of Apple machines."""

from embedmill.engine.catalogue.entry import GraphChoice, Ladder, OnnxRuntime, Provider
from embedmill.engine.catalogue.runtimes import MACOS

COREML = Provider(
    name="coreml",
    drives="GPU and Neural Engine of Apple machines",
    endpoint=OnnxRuntime(
        name="CoreMLExecutionProvider",
        options={"ModelFormat": "MLProgram", "MLComputeUnits": "ALL", "RequireStaticInputShapes": "1"},
        # Core ML has no int64 arrays: the lookup of tokens stays on the CPU.
        on_cpu=frozenset({"Cast", "Gather", "Shape", "Slice", "Unsqueeze", "Erf", "ReduceSum"}),
    ),
    distributions=(MACOS,),
    note="Core ML is part of macOS",
    kinds=("gpu", "npu"),
    # The Neural Engine computes in fp16, and which unit runs a node is Core ML's choice.
    precisions={"fp16": GraphChoice(graph="unfused", floor=0.999)},
    shapes=Ladder(budget_tokens=4096, sequences=(32, 64, 128, 256, 512), most_rows=128),
    runs="adapter",
    memory="host",
)
