"""The packages that bring ONNX Runtime itself (on Windows they carry DirectML too), and what it says of failures."""

from embedmill.engine.catalogue.entry import Distribution, Fault

WINDOWS = (
    Distribution(
        system="Windows",
        architectures=("x86_64",),
        package="onnxruntime-directml",
        install="install onnxruntime-directml",
    ),
    Distribution(
        system="Windows",
        architectures=("arm64",),
        package="onnxruntime-windowsml",
        install="install onnxruntime-windowsml",
    ),
)
LINUX = Distribution(
    system="Linux", architectures=("x86_64", "arm64"), package="onnxruntime", install="install onnxruntime"
)
MACOS = Distribution(system="Darwin", architectures=("arm64",), package="onnxruntime", install="install onnxruntime")

# Whichever provider runs: what the runtime's arena says, and C++ libraries of what is allocated outside of it (MSVC the
# last). No one translates these words.
FAULTS = (
    Fault(pattern="Failed to allocate memory for requested buffer", meaning="out of memory"),
    Fault(pattern="bad_alloc|bad allocation", meaning="out of memory"),
)
