"""The CPU, everywhere."""

from pipeline.engine.catalogue.entry import Exact, GraphChoice, Home, Provider

CPU = Provider(
    name="cpu",
    drives="the CPU",
    ort_name="CPUExecutionProvider",
    homes=(
        Home(system="Linux", architectures=("x86_64", "arm64"), package="onnxruntime", install="install onnxruntime"),
        Home(system="Darwin", architectures=("arm64",), package="onnxruntime", install="install onnxruntime"),
        Home(
            system="Windows",
            architectures=("x86_64",),
            package="onnxruntime-directml",
            install="install onnxruntime-directml",
        ),
        Home(
            system="Windows",
            architectures=("arm64",),
            package="onnxruntime-windowsml",
            install="install onnxruntime-windowsml",
        ),
    ),
    kinds=("cpu",),
    # Another order of sums between processors moves a cosine by some 1e-7.
    precisions={"fp32": GraphChoice(graph="fused", floor=0.99999)},
    shapes=Exact(budget_tokens=512),
    runs="cores",
    memory="host",
)
