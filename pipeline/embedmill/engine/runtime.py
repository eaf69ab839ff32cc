"""ONNX Runtime, which a machine may be unable to load."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from embedmill.base.environment import versions_of
from embedmill.base.errors import NoRuntime
from embedmill.engine.catalogue.runtimes import RUNTIMES

__all__ = ["FATAL", "RUNTIME_ERRORS", "ort"]

# The runtime logs errors that it also raises: only fatal ones are left in its log.
FATAL = 4
# Neither Python nor a wheel brings these libraries of Microsoft's compiler under their own names.
_REDISTRIBUTABLE = (
    "install the Microsoft Visual C++ Redistributable (https://aka.ms/vs/17/release/vc_redist.x64.exe, or"
    " vc_redist.arm64.exe), and run again"
)
_ERRORS = (
    "Fail",
    "InvalidGraph",
    "InvalidArgument",
    "InvalidProtobuf",
    "NoSuchFile",
    "NotImplemented",
    "RuntimeException",
    "EPFail",
    "EngineError",
    "ModelRequiresCompilation",
    "NotFound",
)


class _Unloadable:
    """Stand-in for a runtime; each use raises NoRuntime."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def __getattr__(self, name: str) -> Any:
        raise NoRuntime(self._problem)


def _load() -> Any:
    try:
        import onnxruntime

        # A folder that a removed package left behind is imported too, as a package without content.
        onnxruntime.set_default_logger_severity(FATAL)
    except (ImportError, AttributeError) as error:
        return _Unloadable(f"ONNX Runtime cannot be loaded ({error}): {_remedy(error)}")
    return onnxruntime


def _remedy(error: Exception) -> str:
    if sys.platform == "win32" and "DLL load failed" in str(error):
        return _REDISTRIBUTABLE
    installed = list(versions_of(RUNTIMES)) or ["onnxruntime"]
    return f"install it anew: python -m pip install --force-reinstall --no-deps {installed[-1]}"


if TYPE_CHECKING:
    import onnxruntime as ort
else:
    ort = _load()


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Collect ONNX Runtime's exceptions, which share no base but Exception."""
    # MemoryError is what pybind11 makes of `std::bad_alloc`.
    common = (RuntimeError, ValueError, MemoryError)
    if isinstance(ort, _Unloadable):
        return common
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (*(getattr(state, name) for name in _ERRORS if hasattr(state, name)), *common)


RUNTIME_ERRORS = _runtime_errors()
