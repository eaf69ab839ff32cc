"""The frozen types that flow between rooms; they hold data and do nothing.

Rows are counted from 0 inside the program and shown from 1 to people.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
from msgspec import Struct

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

# Spelt as strings, so that importing this module does not import NumPy.
IntArray: TypeAlias = "npt.NDArray[np.int64]"
TokenArray: TypeAlias = "npt.NDArray[np.int32]"
BoolArray: TypeAlias = "npt.NDArray[np.bool_]"
FloatArray: TypeAlias = "npt.NDArray[np.float32]"


class InputFile(Struct, frozen=True, kw_only=True):
    """One input file.

    `path` is what is opened; `name` is its path below the input root, with `/`, the same on every
    machine; `size_bytes` is its size on disk; `digest` identifies its content.
    """

    path: str
    name: str
    format: str
    compression: str
    size_bytes: int
    digest: str


class Graph(Struct, frozen=True, kw_only=True):
    """An ONNX file of a model's folder, its opset, and whether the runtime should still fuse operators in it."""

    file: str
    opset: int
    optimise: bool


class Canaries(Struct, frozen=True, kw_only=True):
    """Known texts: their tokens, and their vectors as the CPU computes them in float32 [texts, dim]."""

    tokens: Tokens
    vectors: FloatArray


class Model(Struct, frozen=True, kw_only=True):
    """A model as one job uses it.

    `identity` is sha256 over all that decides a vector; `folder` holds the files, whose sha256 are in `files` by
    name; `graphs` are by flavour (`fused`, `unfused`, `fused-fp16`, `unfused-fp16`) and `weights_bytes` the size of
    one's weights; `tokenizer` is a file name; `max_tokens` counts special tokens; `prompt` is put before every text.
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
    """Consecutive rows of one file as a survey finds them.

    `marks` is int64 [rows + 1]: the byte position before each row and after the last one. Positions
    are those of the decompressed text; for Parquet they are accumulated bytes of text, spread evenly
    over each row group.
    """

    file: int
    first_row: int
    marks: IntArray


class Piece(Struct, frozen=True, kw_only=True, array_like=True):
    """`rows` rows of file number `file`, from `first_row`; bytes `start` to `stop` (see `Span.marks`)."""

    file: int
    first_row: int
    rows: int
    start: int
    stop: int


class Shard(Struct, frozen=True, kw_only=True):
    """What becomes one output file: pieces of one or more input files, in input order."""

    ordinal: int
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        """Rows of all pieces."""
        return sum(piece.rows for piece in self.pieces)


class Rejected(Struct, frozen=True, kw_only=True):
    """A row that is not embedded: `row` counts from 1, `excerpt` shows at most 200 characters of it."""

    file: str
    row: int
    reason: str
    id: str | None
    excerpt: str


class Documents(Struct, frozen=True, kw_only=True):
    """The rows of one shard, column by column, in input order.

    `ids` and `texts` have one entry per good row and `carried` one row each; `rejected` holds the
    quarantined ones; `rows_read` = good + quarantined + `rows_skipped`.
    """

    ids: list[str]
    texts: list[str]
    carried: pa.Table
    rejected: list[Rejected]
    rows_read: int
    rows_skipped: int


class Passages(Struct, frozen=True, kw_only=True):
    """The texts that are embedded: whole documents, or chunks of them.

    `document` is int64 [n], the document each passage comes from; `chunk` its number within that
    document; `start` and `stop` its characters there. All are [n].
    """

    texts: list[str]
    document: IntArray
    chunk: IntArray
    start: IntArray
    stop: IntArray


class Tokens(Struct, frozen=True, kw_only=True):
    """Token ids of n texts, end to end: text i has `ids[offsets[i]:offsets[i + 1]]`.

    `ids` int32 [total], `offsets` int64 [n + 1], `truncated` bool [n].
    """

    ids: TokenArray
    offsets: IntArray
    truncated: BoolArray

    @property
    def lengths(self) -> IntArray:
        """Tokens per text, special tokens included: int64 [n]."""
        return self.offsets[1:] - self.offsets[:-1]


class Batch(Struct, frozen=True, kw_only=True):
    """Texts that run together: their numbers, int64 [texts], as an array of `size` x `sequence` tokens.

    `size` exceeds the texts where a fixed shape is filled up with empty rows.
    """

    rows: IntArray
    size: int
    sequence: int


class Bucket(Struct, frozen=True, kw_only=True):
    """A fixed shape: `rows` x `sequence` tokens."""

    rows: int
    sequence: int


class Packing(Struct, frozen=True, kw_only=True):
    """How batches are made: into `buckets` (by rising sequence), or where there are none, into any shape
    of at most `budget_tokens` padded tokens."""

    budget_tokens: int
    buckets: tuple[Bucket, ...] = ()


class Work(Struct, frozen=True, kw_only=True):
    """What an engine embeds in one go: the tokens and the batches that cover each of them once."""

    tokens: Tokens
    batches: list[Batch]

    @property
    def padded_tokens(self) -> int:
        """Tokens that the batches compute, padding included."""
        return sum(batch.size * batch.sequence for batch in self.batches)


class Entry(Struct, frozen=True, kw_only=True):
    """The ledger's word on one committed shard.

    `rows_read` = `rows_written` + `rows_quarantined` + `rows_skipped`; `vectors` counts the rows of
    the output file (more than `rows_written` where documents are chunked). `sha256` and `bytes` are
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


class Totals(Struct, kw_only=True):
    """Sums over the entries of a ledger; rows and tokens as in `Entry`."""

    shards: int = 0
    rows_read: int = 0
    rows_written: int = 0
    rows_quarantined: int = 0
    rows_skipped: int = 0
    vectors: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    truncated: int = 0
    bytes: int = 0


class ShardFile(Struct, frozen=True, kw_only=True):
    """One output file as the manifest lists it."""

    file: str
    rows: int
    bytes: int
    sha256: str


class Stages(Struct, kw_only=True):
    """Where the time of a run went, in seconds: `compute` is summed over `streams`, the rest is not.

    The stages overlap: streams that are busy for nearly `streams` times `wall` are what limits the run.
    """

    wall: float = 0.0
    prepare: float = 0.0
    compute: float = 0.0
    write: float = 0.0
    streams: int = 0


class Tokenised(Struct, frozen=True, kw_only=True):
    """Tokens of a shard's passages: passage i has the text hash `hashes[i]` and the tokens `number[i]`.

    Identical texts of a shard stand once in `tokens`. The texts of `passages` are let go.
    """

    passages: Passages
    hashes: list[str]
    number: IntArray
    tokens: Tokens


class Prepared(Struct, frozen=True, kw_only=True):
    """A shard, read and packed: passage i has the text hash `hashes[i]` and the vector `number[i]` of the work.

    Identical texts of a shard share one vector, so the work may hold fewer texts than there are passages.
    """

    shard: Shard
    documents: Documents
    passages: Passages
    hashes: list[str]
    number: IntArray
    work: Work
