"""Figures of `embedmill bench`: cost, fidelity, memory, and peak."""

from __future__ import annotations

import tempfile
from pathlib import Path

from msgspec import Struct

from embedmill.base.errors import DeviceError
from embedmill.base.home import temporary_folder
from embedmill.base.records import FloatArray, Work
from embedmill.engine.memory.usage import PeakUsage
from embedmill.engine.runners.process import ProcessRunner
from embedmill.engine.sessions.canary import cosines_of

# Square matrices: small ones stay in a CPU's caches, large ones fill a GPU.
PEAK_SIZES = (256, 512, 1024, 2048, 4096)
# The next size, 8 times the work, is run only where a run of it would end in this time.
_NEXT_S = 1.0
_PRODUCTS_S = 120.0


class Reference:
    """Holder of the reference vectors, float32 [texts, dim]; None before."""

    def __init__(self) -> None:
        self.vectors: FloatArray | None = None


class FigureRequest(Struct, frozen=True, kw_only=True):
    """Request for figures.

    `reference` holds the vectors to compare with, set by the trial that `is_reference`; `sizes` are the matrices of
    the matrix peak, which takes seconds (none: not measured).
    """

    reference: Reference
    is_reference: bool
    sizes: tuple[int, ...] = ()


class Figures(Struct, frozen=True, kw_only=True):
    """Figures of one provider; None where unknown.

    texts, tokens, padded_tokens  of one pass
    flops                         operations of the tokens without padding (model/flops.py)
    cosine                        least cosine of a text to the reference
    memory_bytes                  most from before the session was opened to the end of the first pass
    memory_words                  why memory is not known, or whose use is counted too
    peak_flops_per_s              of matrix products alone; `peak_words` says why it is not known
    """

    texts: int
    tokens: int
    padded_tokens: int
    flops: int | None
    cosine: float | None
    memory_bytes: int | None
    memory_words: str
    peak_flops_per_s: float | None
    peak_words: str


def figures_of(
    request: FigureRequest, runner: ProcessRunner, work: Work, rows: list[int], vectors: FloatArray, usage: PeakUsage
) -> Figures:
    """Gather figures of a pass with `vectors` of texts `rows`."""
    # Only a bench needs onnx, which costs every run 40 MiB where it is imported at the top.
    from embedmill.model.flops import text_flops

    model = runner.spec.model
    unfused = model.graphs.get("unfused")
    cost = text_flops(model.path(unfused.file)) if unfused is not None else None
    peak, words = _peak(request.sizes, runner)
    return Figures(
        texts=len(rows),
        tokens=int(work.tokens.lengths.sum()),
        padded_tokens=work.padded_tokens,
        flops=cost.total(work.tokens.lengths) if cost is not None else None,
        cosine=_cosine(request, vectors, rows),
        memory_bytes=usage.peak_bytes,
        memory_words=usage.note,
        peak_flops_per_s=peak,
        peak_words=words,
    )


def _cosine(request: FigureRequest, vectors: FloatArray, rows: list[int]) -> float | None:
    """Return the least cosine to the reference, None without one."""
    if request.is_reference:
        request.reference.vectors = vectors
        return None
    known = request.reference.vectors
    return None if known is None else float(cosines_of(vectors, known[rows]).min())


def _peak(sizes: tuple[int, ...], runner: ProcessRunner) -> tuple[float | None, str]:
    """Measure matrix operations per second, or tell the reason against."""
    from embedmill.model.matrix_peak import peak_flops, write_peak_graph

    target = runner.spec.target
    if not sizes:
        return None, "it was not asked for"
    if target.device is not None and target.device.emulated:
        return None, "the device is emulated"
    # In the precision of the run's graph, for fp16 units may be many times faster.
    half = target.provider.precisions[target.precision].graph.endswith("-fp16")
    best = 0.0
    try:
        with tempfile.TemporaryDirectory(
            prefix="embedmill-peak-", dir=temporary_folder(), ignore_cleanup_errors=True
        ) as folder:
            for size in sizes:
                graph = write_peak_graph(Path(folder), size, half=half)
                seconds = runner.multiply(graph.read_bytes(), timeout_s=_PRODUCTS_S)
                best = max(best, peak_flops(size) / seconds)
                if 8 * seconds > _NEXT_S:
                    break
    except DeviceError as error:
        return None, str(error)
    return best, ""
