"""The packages that bring ONNX Runtime itself; on Windows they carry DirectML too."""

from pipeline.engine.catalogue.entry import Home

WINDOWS = (
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
)
LINUX = Home(system="Linux", architectures=("x86_64", "arm64"), package="onnxruntime", install="install onnxruntime")
MACOS = Home(system="Darwin", architectures=("arm64",), package="onnxruntime", install="install onnxruntime")
