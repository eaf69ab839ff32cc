"""The CPU, everywhere."""

from embedmill.engine.catalogue.entry import Exact, GraphChoice, OnnxRuntime, Provider
from embedmill.engine.catalogue.runtimes import LINUX, MACOS, WINDOWS

CPU = Provider(
    name="cpu",
    drives="the CPU",
    endpoint=OnnxRuntime(name="CPUExecutionProvider", isolated=False, strict=False),
    distributions=(LINUX, MACOS, *WINDOWS),
    kinds=("cpu",),
    # Another order of sums between processors moves a cosine by some 1e-7.
    precisions={"fp32": GraphChoice(graph="fused", floor=0.99999)},
    shapes=Exact(budget_tokens=512),
    runs="cores",
    memory="host",
)
