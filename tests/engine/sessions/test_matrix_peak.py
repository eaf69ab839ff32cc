"""Matrix products on a device: the fastest run, without the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedmill.base.config import TextTable
from embedmill.base.errors import DeviceError
from embedmill.base.records import Model
from embedmill.engine.sessions.matrix_peak import fastest_product
from embedmill.model.bundle import open_bundle
from embedmill.model.matrix_peak import peak_flops, write_peak_graph
from tests.support.jobs import tiny_bundle
from tests.support.works import target_of


@pytest.fixture
def known(tiny_model: Path) -> Model:
    return open_bundle(tiny_bundle(tiny_model)).model(TextTable())


def test_the_cpu_computes_real_products(tmp_path: Path, known: Model) -> None:
    graph = write_peak_graph(tmp_path, 128, half=False)
    seconds = fastest_product(known, target_of(), graph, measured_s=0.0)
    assert 1e7 < peak_flops(128) / seconds < 1e14


def test_a_graph_that_is_not_taken_is_an_error(tmp_path: Path, known: Model) -> None:
    with pytest.raises(DeviceError, match="cannot run"):
        fastest_product(known, target_of(), tmp_path / "absent.onnx")
