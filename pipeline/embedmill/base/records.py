"""Data types exchanged between rooms; most are frozen.

Rows are counted from 0 inside the program and shown from 1 to people.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# Strings, because NumPy is imported for type checking only: start-up stays quick.
IntArray: TypeAlias = "npt.NDArray[np.int64]"
TokenArray: TypeAlias = "npt.NDArray[np.int32]"
BoolArray: TypeAlias = "npt.NDArray[np.bool_]"
FloatArray: TypeAlias = "npt.NDArray[np.float32]"


class InputFile(Struct, frozen=True, kw_only=True):
    """One input file.

    `path` is opened; `name` is the path below the input root, with `/`, the same on every machine;
    `size_bytes` is the size on disk; `digest` identifies the content.
    """

    path: str
    name: str
    format: str
    compression: str
    size_bytes: int
    digest: str


class Graph(Struct, frozen=True, kw_only=True):
    """ONNX file of a model's folder; `optimise`: the runtime should fuse operators."""

    file: str
    opset: int
    optimise: bool


class Canaries(Struct, frozen=True, kw_only=True):
    """Reference tokens, and the CPU's vectors, float32 [texts, dim]."""

    tokens: Tokens
    vectors: FloatArray


class Model(Struct, frozen=True, kw_only=True):
    """Model of one job.

    `identity` is the sha256 of everything that determines a vector; `folder` holds the files, whose sha256
    stand in `files` by name; `graphs` are by flavour (`fused`, `unfused`, `fused-fp16`, `unfused-fp16`),
    `weights_bytes` is the size of one graph's weights; `tokenizer` is a file name; `max_tokens` counts
    special tokens; `prompt` is put before every text.
    """

    name: str
    identity: str
    folder: str
    files: dict[str, str]
    graphs: dict[str, Graph]
    weights_bytes: int
    canaries: Canaries
    tokenizer: str
    dim: int
    pad_id: int
    max_tokens: int
    prompt: str
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
    first_row: int
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


class Documents(Struct, frozen=True, kw_only=True):
    """Rows of one shard by column, in input order.

    `ids`, `texts`, `carried` hold the good rows; `rows_read` = good + `rejected` + `rows_skipped`.
    """

    ids: list[str]
    texts: list[str]
    carried: pa.Table
    rejected: list[Rejected]
    rows_read: int
    rows_skipped: int


class Passages(Struct, frozen=True, kw_only=True):
    """Texts to embed: whole documents or chunks.

    `document` is the document of each passage, `chunk` the number within that document, `start` and
    `stop` the characters there: all int64 [n].
    """

    texts: list[str]
    document: IntArray
    chunk: IntArray
    start: IntArray
    stop: IntArray


class Tokens(Struct, frozen=True, kw_only=True):
    """Token ids of n texts, concatenated.

    Text i has `ids[offsets[i]:offsets[i + 1]]`; `ids` int32 [total], `offsets` int64 [n + 1],
    `truncated` bool [n].
    """

    ids: TokenArray
    offsets: IntArray
    truncated: BoolArray

    @property
    def lengths(self) -> IntArray:
        """Return tokens per text, special tokens included: int64 [n]."""
        return self.offsets[1:] - self.offsets[:-1]


class Batch(Struct, frozen=True, kw_only=True):
    """Texts that run together, as `size` x `sequence` tokens.

    `rows` holds the numbers of the texts, int64 [texts].
    """

    rows: IntArray
    # Exceeds the texts where a fixed shape is filled up with empty rows.
    size: int
    sequence: int


class Bucket(Struct, frozen=True, kw_only=True):
    """Fixed shape of `rows` x `sequence` tokens."""

    rows: int
    sequence: int


class Packing(Struct, frozen=True, kw_only=True):
    """Packing policy: fixed `buckets`, or any shape within a budget.

    `buckets` rise by sequence; without any, a batch has at most `budget_tokens` padded tokens.
    """

    budget_tokens: int
    buckets: tuple[Bucket, ...] = ()


class Work(Struct, frozen=True, kw_only=True):
    """Work for an engine: tokens, and batches covering each once."""

    tokens: Tokens
    batches: list[Batch]

    @property
    def padded_tokens(self) -> int:
        """Return the tokens of all batches, padding included."""
        return sum(batch.size * batch.sequence for batch in self.batches)


class Entry(Struct, frozen=True, kw_only=True):
    """Ledger entry of one committed shard.

    `rows_read` = `rows_written` + `rows_quarantined` + `rows_skipped`; `vectors` counts the rows of
    the output file, more than `rows_written` where documents are chunked. `sha256` and `bytes` are
    of the output file; `quarantine_sha256` is empty where nothing was quarantined.
    """

    ordinal: int
    file: str
    pieces: tuple[Piece, ...]
    rows_read: int
    rows_written: int
    rows_quarantined: int
    rows_skipped: int
    vectors: int
    tokens: int
    padded_tokens: int
    truncated: int
    bytes: int
    sha256: str
    quarantine_sha256: str
    identity: str


class Tokenised(Struct, frozen=True, kw_only=True):
    """Tokens of a shard's passages: passage i has the text hash `hashes[i]` and the tokens `number[i]`.

    Identical texts of a shard stand once in `tokens`. The texts of `passages` are let go.
    """

    passages: Passages
    hashes: list[str]
    number: IntArray
    tokens: Tokens


class Prepared(Struct, frozen=True, kw_only=True):
    """Shard that was read, tokenised and packed.

    Passage i has the text hash `hashes[i]` and the vector `number[i]` of the work. Identical texts of
    a shard share one vector, so the work may hold fewer texts than there are passages.
    """

    shard: Shard
    documents: Documents
    passages: Passages
    hashes: list[str]
    number: IntArray
    work: Work
