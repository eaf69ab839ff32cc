"""Frozen data types exchanged between rooms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from embedmill.base.files.sealed import Sealed
from embedmill.base.files.state import UNREAD, FileState

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# Strings, because NumPy is imported for type checking only: start-up stays quick.
IntArray: TypeAlias = "npt.NDArray[np.int64]"
TokenArray: TypeAlias = "npt.NDArray[np.int32]"
BoolArray: TypeAlias = "npt.NDArray[np.bool_]"
FloatArray: TypeAlias = "npt.NDArray[np.float32]"

# Of a normalised vector's length from 1: far above float16 rounding (2e-3), far below vectors not normalised.
NORM_TOLERANCE = 0.01


class InputFile(Struct, frozen=True, kw_only=True):
    """One input file."""

    path: str  # to open
    name: str  # below the input root, with `/`: the same on every machine
    format: str
    compression: str
    size_bytes: int  # on disk
    digest: str  # `sha256:` of the content
    state: FileState = UNREAD  # when that was read


class Graph(Struct, frozen=True, kw_only=True):
    """ONNX file of a model's folder."""

    file: str
    opset: int
    optimise: bool  # the runtime should fuse operators


class Canaries(Struct, frozen=True, kw_only=True):
    """Reference tokens, and the CPU's vectors, float32 [texts, dim]."""

    tokens: Tokens
    vectors: FloatArray


class Model(Struct, frozen=True, kw_only=True):
    """Model of one job."""

    name: str
    identity: str  # sha256 of everything that determines a vector
    folder: str
    files: dict[str, str]  # sha256 of each file in `folder`, by name
    graphs: dict[str, Graph]  # by flavour: `fused`, `unfused`, `fused-fp16`, `unfused-fp16`
    weights_bytes: int  # of one graph
    canaries: Canaries
    tokenizer: str  # name of a file
    dim: int
    pad_id: int
    max_tokens: int  # special tokens included
    prompt: str  # put before every text
    lowercase: bool
    normalized: bool

    def path(self, file: str) -> Path:
        """Return where a file of the model is."""
        return Path(self.folder) / file


class Span(Struct, frozen=True, kw_only=True):
    """Consecutive rows of one file.

    `marks` is int64 [rows + 1]: the byte position before each row and after the last one, in the
    decompressed text; for Parquet accumulated bytes of text, spread evenly over each row group.
    """

    file: int
    first_row: int  # from 0; people are shown rows from 1
    marks: IntArray


# As arrays, because a job of many small files writes a piece for each of them into job.json.
class Piece(Struct, frozen=True, kw_only=True, array_like=True):
    """Rows of one file, bytes `start` to `stop` (see `Span.marks`)."""

    file: int
    first_row: int
    rows: int
    start: int
    stop: int


class Shard(Struct, frozen=True, kw_only=True):
    """Contents of one output file: pieces in input order."""

    ordinal: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Return the rows of all pieces."""
        return sum(piece.rows for piece in self.pieces)


class Rejected(Struct, frozen=True, kw_only=True):
    """Quarantined row, from 1; `excerpt` of at most 200 characters."""

    file: str
    row: int
    reason: str
    id: str | None
    excerpt: str


class SetAside(Struct, frozen=True, kw_only=True):
    """Row, counted from 0, that ended a process."""

    file: int
    row: int
    reason: str


class Documents(Struct, frozen=True, kw_only=True):
    """Rows of one shard by column, in input order."""

    # Of the good rows.
    ids: list[str]
    texts: list[str]
    carried: pa.Table
    rejected: list[Rejected]
    rows_read: int  # good, rejected and skipped
    rows_skipped: int


class Passages(Struct, frozen=True, kw_only=True):
    """Texts to embed: whole documents or chunks; arrays int64 [n]."""

    texts: list[str]
    document: IntArray  # of each passage
    chunk: IntArray  # number within the document
    # Characters in the document.
    start: IntArray
    stop: IntArray


class Tokens(Struct, frozen=True, kw_only=True):
    """Token ids of n texts, concatenated."""

    # Text i has `ids[offsets[i]:offsets[i + 1]]`.
    ids: TokenArray  # int32 [total]
    offsets: IntArray  # int64 [n + 1]
    truncated: BoolArray  # bool [n]

    @property
    def lengths(self) -> IntArray:
        """Return tokens per text, special tokens included: int64 [n]."""
        return self.offsets[1:] - self.offsets[:-1]


class Batch(Struct, frozen=True, kw_only=True):
    """Texts that run together, as `size` x `sequence` tokens."""

    rows: IntArray  # numbers of the texts, int64 [texts]
    size: int  # more than the texts where a fixed shape is filled up with empty rows
    sequence: int


class Bucket(Struct, frozen=True, kw_only=True):
    """Fixed shape of `rows` x `sequence` tokens."""

    rows: int
    sequence: int


class Packing(Struct, frozen=True, kw_only=True):
    """Packing policy: fixed `buckets`, or any shape within a budget."""

    budget_tokens: int  # padded tokens of a batch, at most, where there are no buckets
    buckets: tuple[Bucket, ...] = ()  # rising by sequence


class Work(Struct, frozen=True, kw_only=True):
    """Work for an engine: tokens, and batches covering each once."""

    tokens: Tokens
    batches: list[Batch]

    @property
    def padded_tokens(self) -> int:
        """Return the tokens of all batches, padding included."""
        return sum(batch.size * batch.sequence for batch in self.batches)


class Entry(Sealed, frozen=True, kw_only=True):
    """Ledger entry of one committed shard."""

    ordinal: int
    file: str
    pieces: tuple[Piece, ...]
    rows_read: int  # written, quarantined and skipped
    rows_written: int
    rows_quarantined: int
    rows_skipped: int
    vectors: int  # rows of the output file: more than `rows_written` where documents are chunked
    tokens: int
    padded_tokens: int
    truncated: int
    # Of the output file.
    bytes: int
    sha256: str
    quarantine_sha256: str  # empty where nothing was quarantined
    identity: str
    job: str = ""  # digest of `job.json`


class Tokenised(Struct, frozen=True, kw_only=True):
    """Tokens of a shard's passages, identical texts once."""

    passages: Passages  # without the texts, which are let go
    hashes: list[str]  # text hash of each passage
    number: IntArray  # place of each passage's text in `tokens`
    tokens: Tokens


class Prepared(Struct, frozen=True, kw_only=True):
    """Shard that was read, tokenised and packed."""

    shard: Shard
    documents: Documents
    passages: Passages
    hashes: list[str]  # text hash of each passage
    number: IntArray  # place of each passage's vector in `work`: identical texts of a shard share one
    work: Work
