"""What `embedmill bench` measures of a provider beside its rates; a part of the trial, in its process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from embedmill.base.errors import DeviceError

if TYPE_CHECKING:
    from embedmill.base.records import FloatArray, Model, Work
    from embedmill.engine.memory.usage import PeakUsage
    from embedmill.engine.target import Target

# Square matrices: small ones stay in a CPU's caches, large ones fill a GPU.
_PEAK_SIZES = (256, 512, 1024, 2048, 4096)


class FigureRequest(Struct, frozen=True, kw_only=True):
    """What to measure: `folder` holds what the trials of a bench share; a `reference` writes the vectors there that
    the others are compared with; `peak` is the matrix peak, which takes seconds."""

    folder: str
    reference: bool
    peak: bool

    @property
    def vectors(self) -> Path:
        """The reference, float32 [texts, dim] in NumPy's format."""
        return Path(self.folder) / "vectors.npy"


class Figures(Struct, frozen=True, kw_only=True):
    """What was measured; None where it is not known.

    texts, tokens, padded_tokens  of one pass
    flops                         operations that its tokens cost without padding (model/flops.py)
    cosine                        the least of a text to its reference
    memory_bytes                  at most from before the session was opened to the end of the first pass
    memory_words                  what is to be said of it: why it is not known, or whose else it is
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
    wanted: FigureRequest,
    target: Target,
    model: Model,
    work: Work,
    rows: list[int],
    vectors: FloatArray,
    taken: PeakUsage,
) -> Figures:
    """The figures of a pass that gave `vectors` float32 [texts, dim] for the texts `rows` of the bench."""
    from embedmill.model.flops import cost_of

    unfused = model.graphs.get("unfused")
    cost = cost_of(Path(unfused.path)) if unfused is not None else None
    peak, words = _peak(wanted, target, model)
    return Figures(
        texts=len(rows),
        tokens=int(work.tokens.lengths.sum()),
        padded_tokens=work.padded_tokens,
        flops=cost.flops(work.tokens.lengths) if cost is not None else None,
        cosine=_cosine(wanted, rows, vectors),
        memory_bytes=taken.peak_bytes,
        memory_words=taken.words,
        peak_flops_per_s=peak,
        peak_words=words,
    )


def _cosine(wanted: FigureRequest, rows: list[int], vectors: FloatArray) -> float | None:
    """The least cosine to the reference; None where there is none, or where this is it."""
    import numpy as np

    from embedmill.engine.sessions.canary import cosines_of

    if wanted.reference:
        np.save(wanted.vectors, vectors, allow_pickle=False)
        return None
    if not wanted.vectors.is_file():
        return None
    return float(cosines_of(vectors, np.load(wanted.vectors, allow_pickle=False)[rows]).min())


def _peak(wanted: FigureRequest, target: Target, model: Model) -> tuple[float | None, str]:
    """Operations per second of matrix products, or why they are not known."""
    from embedmill.engine.sessions.matrix_peak import matrix_peak
    from embedmill.model.matrix_peak import peak_flops, write_peak

    if not wanted.peak:
        return None, "it was not asked for"
    if target.device is not None and target.device.emulated:
        return None, "the device is emulated"
    half = target.provider.precisions[target.precision].graph.endswith("-fp16")
    try:
        return matrix_peak(
            target, model, _PEAK_SIZES, lambda size: write_peak(Path(wanted.folder), size, half=half), peak_flops
        ), ""
    except DeviceError as error:
        return None, str(error)
