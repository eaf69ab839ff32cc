"""The providers are data that hold together, and nothing but the catalogue names one."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import embedmill
from embedmill.base.errors import DeviceError
from embedmill.engine.catalogue import AUTO, PROVIDERS, find_provider
from embedmill.engine.catalogue.entry import Fault, Ladder, Provider
from embedmill.model.bundle import Flavour

HOUSE = Path(embedmill.__file__).parent
FILES = sorted(path.relative_to(HOUSE).as_posix() for path in HOUSE.rglob("*.py") if path.parent.name != "catalogue")
FAULTS = [(provider, fault) for provider in PROVIDERS for fault in provider.ort.faults]
every_provider = pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)

# "cpu" is a kind of device too, and ONNX Runtime's word for the memory of the host; its provider is the one that
# takes what no other does, which a session must know to refuse it.
CPU_WORDS = {
    "engine/machine/adapters/adapter.py": {"cpu"},
    "engine/machine/adapters/dxgi.py": {"cpu"},
    "engine/machine/adapters/vulkan.py": {"cpu"},
    "engine/sessions/session.py": {"cpu"},
}
# Vectors that others are held against come from the CPU.
ENTRIES_USED = {"engine/sessions/canary.py": {"cpu"}, "jobs/bench.py": {"cpu"}}


def test_every_provider_is_found_by_its_name() -> None:
    assert [find_provider(provider.name) for provider in PROVIDERS] == list(PROVIDERS)


@pytest.mark.parametrize("name", ["cuda9", "CPU", "", AUTO])
def test_an_unknown_provider_lists_the_known_ones(name: str) -> None:
    with pytest.raises(DeviceError) as refused:
        find_provider(name)
    known = ", ".join([AUTO, *(provider.name for provider in PROVIDERS)])
    assert str(refused.value) == (f"there is no provider {name!r}; `engine.provider` (--provider) can be {known}")


def test_names_are_unique_and_auto_is_none() -> None:
    for names in ([provider.name for provider in PROVIDERS], [provider.ort.name for provider in PROVIDERS]):
        assert len(set(names)) == len(names)
    assert AUTO not in [provider.name for provider in PROVIDERS]


def test_the_cpu_is_the_last_resort() -> None:
    assert PROVIDERS[-1].ort.name == "CPUExecutionProvider"


@every_provider
def test_an_entry_says_what_it_drives_and_how_it_is_called(provider: Provider) -> None:
    assert re.fullmatch(r"[a-z]+", provider.name)
    assert re.fullmatch(r"\w+ExecutionProvider", provider.ort.name)
    assert provider.drives
    assert provider.kinds
    assert len(set(provider.kinds)) == len(provider.kinds)


@every_provider
def test_every_distribution_has_an_install_line_for_its_package(provider: Provider) -> None:
    assert provider.distributions
    found = [(place.system, architecture) for place in provider.distributions for architecture in place.architectures]
    assert len(set(found)) == len(found)
    for place in provider.distributions:
        assert place.architectures
        assert place.install.startswith("install ")
        assert place.package in place.install


@every_provider
def test_every_precision_runs_a_graph_that_bundles_have_and_holds_a_floor(provider: Provider) -> None:
    assert provider.precisions
    for precision, choice in provider.precisions.items():
        assert choice.graph in get_args(Flavour)
        assert choice.floor >= {"fp32": 0.99999, "fp16": 0.999}[precision]
        assert choice.floor < 1


@every_provider
def test_half_precision_is_never_the_default_where_there_is_more(provider: Provider) -> None:
    precisions = list(provider.precisions)
    assert precisions[0] == ("fp32" if "fp32" in precisions else "fp16")


@every_provider
def test_a_ladder_rises_and_its_longest_bucket_keeps_the_budget(provider: Provider) -> None:
    shapes = provider.shapes
    if isinstance(shapes, Ladder):
        assert list(shapes.sequences) == sorted(set(shapes.sequences))
        assert shapes.sequences[-1] <= shapes.budget_tokens
        assert shapes.most_rows & (shapes.most_rows - 1) == 0
    assert shapes.budget_tokens > 0


@every_provider
def test_every_provider_is_strict_about_where_nodes_go(provider: Provider) -> None:
    """Operators may be left to the CPU where the entry names them, and nowhere else."""
    assert provider.ort.strict != (provider.name == "cpu")
    assert bool(provider.ort.on_cpu) == (provider.name in {"cuda", "coreml"})


@every_provider
def test_a_provider_that_wsl_cannot_have_says_what_to_do_there(provider: Provider) -> None:
    assert bool(provider.wsl) == (provider.name in {"directml", "qnn"})
    assert not provider.wsl or "run embedmill on the Windows side" in provider.wsl


@every_provider
def test_what_is_compiled_or_emulated_needs_a_plugin(provider: Provider) -> None:
    assert provider.ort.plugin is not None or not (provider.ort.compiled or provider.ort.emulated)


@pytest.mark.parametrize(("provider", "fault"), FAULTS, ids=lambda value: getattr(value, "pattern", "of"))
def test_faults_are_known_by_their_codes(provider: Provider, fault: Fault) -> None:
    re.compile(fault.pattern)
    assert re.findall(r"[a-z]{4,}", fault.pattern.replace("failure|error", "")) == []


@pytest.mark.parametrize(
    ("name", "said", "meaning"),
    [
        ("directml", "Non-zero status code returned. HRESULT 8007000E", "out of memory"),
        ("directml", "DmlCommittedResourceAllocator.cpp(22)\\onnxruntime.dll!00: (caller) Exception(1) tid(1) 887A0005",
         "device lost"),
        ("directml", "887A0007", "device lost"),
        ("directml", "887A0004", "driver too old"),
        ("cuda", "CUDA failure 2: out of memory ; GPU=0", "out of memory"),
        ("cuda", "CUDA failure 700: an illegal memory access was encountered", "device lost"),
        ("cuda", "CUDA failure 35: CUDA driver version is insufficient", "driver too old"),
        ("cuda", "CUDA failure 209: no kernel image is available", None),
        ("cuda", "CUDA failure 701: too many resources requested", None),
        ("webgpu", "vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY", "out of memory"),
        ("webgpu", "VK_ERROR_DEVICE_LOST", "device lost"),
        ("qnn", "Failed to finalize QNN graph. Error code: QNN_COMMON_ERROR_MEM_ALLOC", "out of memory"),
        ("openvino", "clEnqueueNDRangeKernel, error code: CL_OUT_OF_RESOURCES", "out of memory"),
        ("openvino", "ZE_RESULT_ERROR_DEVICE_LOST", "device lost"),
    ],
    ids=str,
)  # fmt: skip
def test_a_code_means_what_its_maker_says(name: str, said: str, meaning: str | None) -> None:
    found = [fault.meaning for fault in find_provider(name).ort.faults if re.search(fault.pattern, said)]
    assert found == ([] if meaning is None else [meaning])


def test_nothing_else_names_a_provider() -> None:
    """Whole strings: what a string tells people may name one."""
    names = {name for provider in PROVIDERS for name in (provider.name, provider.ort.name)}
    found = {file: strings(file) & names for file in FILES}
    assert {file: used for file, used in found.items() if used} == {
        file: used for file, used in CPU_WORDS.items() if file in FILES
    }


def test_nothing_else_imports_an_entry() -> None:
    found = {file: imported(file) for file in FILES}
    assert {file: names for file, names in found.items() if names} == ENTRIES_USED


def strings(file: str) -> set[str]:
    """Every string of a file of the house."""
    constants = [node for node in ast.walk(tree(file)) if isinstance(node, ast.Constant)]
    return {node.value for node in constants if isinstance(node.value, str)}


def imported(file: str) -> set[str]:
    """The providers whose entries a file imports."""
    known = {provider.name for provider in PROVIDERS}
    modules = {node.module or "" for node in ast.walk(tree(file)) if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in ast.walk(tree(file)) if isinstance(node, ast.Import) for alias in node.names}
    return {module.rpartition(".")[2] for module in modules if module.startswith("embedmill.engine.catalogue.")} & known


def tree(file: str) -> ast.Module:
    """The syntax tree of a file of the house."""
    return ast.parse((HOUSE / file).read_text("utf-8"))
