"""The environment names the versions that a run used."""

from __future__ import annotations

from embedmill.base.environment import environment, version


def test_the_environment_names_what_computes() -> None:
    assert {"system", "machine", "python", "numpy", "pyarrow", "tokenizers"} <= set(environment())
    assert any(name.startswith("onnxruntime") for name in environment())


def test_the_version_is_the_installed_one() -> None:
    assert version()[0].isdigit()
