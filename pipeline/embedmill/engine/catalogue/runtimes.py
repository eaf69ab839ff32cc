"""Packages of ONNX Runtime, and failures of any provider."""

from embedmill.engine.catalogue.entry import Architecture, Distribution, Fault, System


def distributions(
    package: str, systems: tuple[System, ...], architectures: tuple[Architecture, ...], arguments: str = ""
) -> tuple[Distribution, ...]:
    """Return the distributions of a package that several systems share."""
    return tuple(
        Distribution(system=system, architectures=architectures, package=package, arguments=arguments)
        for system in systems
    )


# Both carry DirectML too.
WINDOWS = (
    Distribution(system="Windows", architectures=("x86_64",), package="onnxruntime-directml"),
    Distribution(system="Windows", architectures=("arm64",), package="onnxruntime-windowsml"),
)
# Reads the catalogue of Windows ML, by which Windows 11 (24H2) keeps providers.
WINDOWS_ML_PACKAGE = "windowsml"
WINDOWS_ML = distributions(WINDOWS_ML_PACKAGE, ("Windows",), ("x86_64",))
LINUX = Distribution(system="Linux", architectures=("x86_64", "arm64"), package="onnxruntime")
MACOS = Distribution(system="Darwin", architectures=("arm64",), package="onnxruntime")
# Distributions of ONNX Runtime itself. All have the same module, so that one of them replaces files of another.
RUNTIMES = (
    "onnxruntime",
    "onnxruntime-directml",
    "onnxruntime-windowsml",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
    "onnxruntime-cann",
    "onnxruntime-training",
)

# Messages of the runtime's arena, and of C++ libraries outside of it (MSVC's the last). They are never translated.
FAULTS = (
    Fault(pattern="Failed to allocate memory for requested buffer", meaning="out of memory"),
    Fault(pattern="bad_alloc|bad allocation", meaning="out of memory"),
)
