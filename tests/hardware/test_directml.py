"""What is handed to the real DirectML under Wine is what the catalogue emits, and what comes back is read rightly."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("Wine is for Linux", allow_module_level=True)


from embedmill.base.records import Bucket
from embedmill.engine.catalogue.directml import DIRECTML
from embedmill.engine.sessions.options import plan_session
from hardware.directml.elf import retarget
from hardware.directml.errors import SetupError
from hardware.directml.parity import plan_lines
from hardware.directml.wine import Wine, assigned
from tests.support.fake_devices import device_of
from tests.support.works import model

BUCKET = Bucket(rows=4, sequence=64)


def test_a_plan_holds_the_catalogues_options_and_fixed_dimensions() -> None:
    device = device_of(0, DxgiAdapterNumber="3")
    plan = plan_session(model(graphs=["fused-fp16"]), DIRECTML, "fp16", threads=1, bucket=BUCKET, device=device)
    lines = plan_lines(plan, BUCKET, 384, 7)
    assert {
        "graph fused-fp16.onnx",
        "batch 4",
        "sequence 64",
        "inputs 7",
        "memory_pattern 0",
        "execution sequential",
        "config session.disable_cpu_ep_fallback 1",
        "free_dimension batch 4",
        "free_dimension sequence 64",
        "provider DML",
        "option device_id 3",
    } <= set(lines)


def test_without_a_device_the_most_powerful_is_asked_for() -> None:
    plan = plan_session(model(), DIRECTML, "fp32", threads=1, bucket=BUCKET)
    assert "option performance_preference high_performance" in plan_lines(plan, BUCKET, 384, 1)


def test_nodes_are_counted_by_provider() -> None:
    facts = {"assigned.DmlExecutionProvider.Add": "6", "assigned.DmlExecutionProvider.MatMul": "4", "done": "1"}
    assert assigned(facts | {"assigned.CPUExecutionProvider.Gather": "1", "nodes.DmlExecutionProvider": "1"}) == {
        "DmlExecutionProvider": 10,
        "CPUExecutionProvider": 1,
    }


def test_a_folder_that_is_no_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"is not a job: it has no plan\.txt"):
        Wine(folder=tmp_path).run(tmp_path)


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libnothing.so").write_bytes(b"no ELF at all")
    with pytest.raises(SetupError, match="expected a 64-bit little-endian ELF file"):
        retarget(tmp_path / "libnothing.so", "libm.so.6", "GLIBC_2.43", "GLIBC_2.2.5")
