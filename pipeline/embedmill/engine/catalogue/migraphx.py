"""MIGraphX: AMD GPUs under Linux and Windows 11.

Facts: the MIGraphX page of ONNX Runtime's documentation, and Microsoft's list of Windows ML's providers.
"""

from embedmill.engine.catalogue.entry import DeviceChoice, Fault, GraphChoice, Ladder, OnnxRuntime, Plugin, Provider
from embedmill.engine.catalogue.runtimes import WINDOWS_ML, distributions

MIGRAPHX = Provider(
    name="migraphx",
    drives="AMD GPUs",
    endpoint=OnnxRuntime(
        name="MIGraphXExecutionProvider",
        # Under Linux the package has it built in.
        plugin=Plugin(windows_ml=True),
        device=DeviceChoice(option="device_id", metadata="device_id"),
        memory_limit="migraphx_mem_limit",
        faults=(
            Fault(pattern=r"HIP (failure|error) 2\b", meaning="out of memory"),
            Fault(pattern=r"HIP (failure|error) (700|719)\b", meaning="device lost"),
            Fault(pattern=r"HIP (failure|error) 35\b", meaning="driver too old"),
        ),
    ),
    distributions=(
        *distributions(
            "onnxruntime-migraphx",
            ("Linux",),
            ("x86_64",),
            # The package replaces the files of an installed runtime.
            arguments="--force-reinstall onnxruntime-migraphx",
        ),
        *WINDOWS_ML,
    ),
    note="Linux needs AMD's ROCm with MIGraphX; Windows 11 (24H2) fetches it, if asked",
    kinds=("gpu",),
    precisions={
        "fp32": GraphChoice(graph="unfused", floor=0.99999),
        "fp16": GraphChoice(graph="unfused-fp16", floor=0.999),
    },
    # A program is compiled for each shape.
    shapes=Ladder(budget_tokens=16384, sequences=(32, 64, 128, 256, 512), most_rows=512),
    runs="one",
    memory="vendor",
)
