"""CUDA: NVIDIA GPUs under Linux and Windows."""

from embedmill.engine.catalogue.entry import DeviceChoice, Exact, Fault, GraphChoice, OnnxRuntime, Provider
from embedmill.engine.catalogue.runtimes import distributions

CUDA = Provider(
    name="cuda",
    drives="NVIDIA GPUs",
    endpoint=OnnxRuntime(
        name="CUDAExecutionProvider",
        device=DeviceChoice(option="device_id", metadata="device_id"),
        options={"arena_extend_strategy": "kSameAsRequested"},
        # The provider itself leaves the arithmetic on shapes to the CPU, where the shapes are.
        on_cpu=frozenset({"Shape", "Gather", "Slice", "Concat", "Unsqueeze"}),
        memory_limit="gpu_mem_limit",
        preload=True,
        bound=True,
        faults=(
            Fault(pattern=r"CUDA (failure|error) 2\b|CUBLAS_STATUS_ALLOC_FAILED", meaning="out of memory"),
            Fault(pattern=r"CUDA (failure|error) (46|700|719)\b", meaning="device lost"),
            Fault(pattern=r"CUDA (failure|error) 35\b", meaning="driver too old"),
        ),
    ),
    distributions=distributions(
        "onnxruntime-gpu",
        ("Linux", "Windows"),
        ("x86_64",),
        # The package replaces the files of an installed runtime.
        arguments='--force-reinstall "onnxruntime-gpu[cuda,cudnn]"',
    ),
    note="it needs an NVIDIA driver",
    kinds=("gpu",),
    precisions={
        "fp32": GraphChoice(graph="fused", floor=0.99999, options={"use_tf32": "0"}),
        "fp16": GraphChoice(graph="fused-fp16", floor=0.999),
    },
    shapes=Exact(budget_tokens=16384),
    runs="one",
    memory="nvml",
)
