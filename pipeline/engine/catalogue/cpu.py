"""The CPU, everywhere."""

from pipeline.engine.catalogue.entry import Exact, Fault, GraphChoice, Provider
from pipeline.engine.catalogue.runtimes import LINUX, MACOS, WINDOWS

CPU = Provider(
    name="cpu",
    drives="the CPU",
    ort_name="CPUExecutionProvider",
    homes=(LINUX, MACOS, *WINDOWS),
    kinds=("cpu",),
    # Another order of sums between processors moves a cosine by some 1e-7.
    precisions={"fp32": GraphChoice(graph="fused", floor=0.99999)},
    shapes=Exact(budget_tokens=512),
    runs="cores",
    memory="host",
    # What the arena says, and C++ libraries of what is allocated outside of it (MSVC the last): no one translates it.
    faults=(
        Fault(pattern="Failed to allocate memory for requested buffer", meaning="out of memory"),
        Fault(pattern="bad_alloc|bad allocation", meaning="out of memory"),
    ),
)
