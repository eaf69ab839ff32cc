"""OpenVINO: Intel CPUs, GPUs and NPUs."""

import json

from embedmill.engine.catalogue.entry import Fault, GraphChoice, Ladder, OnnxRuntime, Plugin, Provider
from embedmill.engine.catalogue.runtimes import distributions


def _hint(precision: str) -> dict[str, str]:
    # OpenVINO would compute in bfloat16 on a CPU that has it (cosine 0.99993, measured on a Xeon).
    return {"load_config": json.dumps({kind: {"INFERENCE_PRECISION_HINT": precision} for kind in ("CPU", "GPU")})}


OPENVINO = Provider(
    name="openvino",
    drives="Intel GPUs, NPUs and CPUs",
    endpoint=OnnxRuntime(
        name="OpenVINOExecutionProvider",
        plugin=Plugin(module="onnxruntime_ep_openvino", windows_ml=True),
        faults=(
            # OpenCL drives the GPU, Level Zero (ZE) the NPU.
            Fault(pattern=r"CL_(MEM_OBJECT_ALLOCATION_FAILURE|OUT_OF_\w+)", meaning="out of memory"),
            Fault(pattern=r"ZE_RESULT_ERROR_OUT_OF_(HOST|DEVICE)_MEMORY", meaning="out of memory"),
            Fault(pattern=r"ZE_RESULT_ERROR_DEVICE_LOST", meaning="device lost"),
            Fault(pattern=r"ZE_RESULT_ERROR_UNSUPPORTED_VERSION", meaning="driver too old"),
        ),
    ),
    distributions=distributions("onnxruntime-ep-openvino", ("Linux", "Windows"), ("x86_64",)),
    kinds=("gpu", "npu", "cpu"),
    precisions={
        "fp32": GraphChoice(graph="unfused", floor=0.99999, options=_hint("f32")),
        "fp16": GraphChoice(graph="unfused", floor=0.999, options=_hint("f16")),
    },
    shapes=Ladder(budget_tokens=4096, sequences=(32, 64, 128, 256, 512), most_rows=128),
    runs="one",
    memory="vendor",
)
