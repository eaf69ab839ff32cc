"""Vitis AI: AMD's Ryzen AI NPU, by Windows ML.

Facts: Microsoft's list of Windows ML's providers.
"""

from embedmill.engine.catalogue.entry import GraphChoice, Ladder, OnnxRuntime, Plugin, Provider
from embedmill.engine.catalogue.runtimes import WINDOWS_ML

VITISAI = Provider(
    name="vitisai",
    drives="the NPU of AMD Ryzen AI machines",
    endpoint=OnnxRuntime(name="VitisAIExecutionProvider", plugin=Plugin(windows_ml=True)),
    distributions=WINDOWS_ML,
    note="Windows 11 (24H2) fetches it, if asked",
    kinds=("npu",),
    # The NPU computes floats in bfloat16.
    precisions={"fp16": GraphChoice(graph="unfused", floor=0.999)},
    shapes=Ladder(budget_tokens=2048, sequences=(32, 64, 128, 256, 512), most_rows=32),
    runs="adapter",
    memory="unknown",
)
