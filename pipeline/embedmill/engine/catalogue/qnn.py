"""QNN: the NPU (Hexagon, HTP) of Snapdragon machines.

Facts: the QNN page of ONNX Runtime's documentation, and runs on the HTP emulation inside the Linux x86-64 wheel.
"""

from embedmill.engine.catalogue.entry import Fault, GraphChoice, Ladder, OnnxRuntime, Plugin, Provider
from embedmill.engine.catalogue.runtimes import distributions

QNN = Provider(
    name="qnn",
    drives="the NPU of Snapdragon machines",
    endpoint=OnnxRuntime(
        name="QNNExecutionProvider",
        plugin=Plugin(module="onnxruntime_qnn", windows_ml=True),
        options={"backend_type": "htp", "htp_performance_mode": "burst", "enable_htp_fp16_precision": "1"},
        # Without a chip to ask, the emulation must be told one: 60 is a Snapdragon X Elite.
        emulated={"soc_model": "60"},
        compiled=True,
        faults=(
            Fault(pattern=r"Code: 1002\b|QNN_COMMON_ERROR_MEM_ALLOC", meaning="out of memory"),
            Fault(pattern=r"QNN_COMMON_ERROR_SYSTEM_COMMUNICATION", meaning="device lost"),
            Fault(pattern=r"QNN_COMMON_ERROR_INCOMPATIBLE_BINARIES", meaning="driver too old"),
        ),
    ),
    distributions=(
        # The package requires `onnxruntime`, which would replace the files of the runtime with DirectML.
        *distributions("onnxruntime-qnn", ("Windows",), ("arm64", "x86_64"), arguments="--no-deps onnxruntime-qnn"),
        *distributions("onnxruntime-qnn", ("Linux",), ("arm64", "x86_64")),
    ),
    note="on x86-64 the wheel only emulates the NPU, for tests",
    wsl="WSL2 passes no NPU through: run embedmill on the Windows side (README.md has its three lines)",
    kinds=("npu",),
    # HTP runs float graphs as fp16; it has no fused operators, but fuses Gelu and LayerNormalization itself.
    precisions={"fp16": GraphChoice(graph="unfused", floor=0.999)},
    shapes=Ladder(budget_tokens=2048, sequences=(32, 64, 128, 256, 512), most_rows=32),
    runs="adapter",
    memory="unknown",
)
