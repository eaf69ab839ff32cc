"""Shards as Parquet files: tables, bytes, ids, ledger entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedmill.base.errors import Corrupt
from embedmill.base.records import Entry, FloatArray, Prepared, Rejected
from embedmill.base.signals import checkpoint

VECTOR = "embedding"
# The columns that identify a row stand before the vector.
_KEY_COLUMNS = ("id", "chunk", "char_start", "char_end")
# DuckDB and LanceDB read vectors best in row groups of a few thousand rows.
_ROW_GROUP_ROWS = 8192
_FOOTER = "embed."
_VECTOR_LEAF = f"{VECTOR}.list.element"


def output_table(prepared: Prepared, vectors: FloatArray, *, chunked: bool) -> pa.Table:
    """Build a shard's table from `vectors`, float32 [distinct texts, dim]."""
    passages, tokens, number = prepared.passages, prepared.work.tokens, prepared.number
    document = pa.array(passages.document)
    columns: dict[str, Any] = {
        "id": pa.array(prepared.documents.ids, pa.string()).take(document),
        "n_tokens": pa.array(tokens.lengths[number], pa.int32()),
        "truncated": pa.array(tokens.truncated[number]),
        "text_hash": pa.array(prepared.hashes, pa.string()),
    }
    if chunked:
        columns |= {
            "chunk": pa.array(passages.chunk, pa.int32()),
            "char_start": pa.array(passages.start, pa.int64()),
            "char_end": pa.array(passages.stop, pa.int64()),
        }
    carried = prepared.documents.carried
    return shard_table(columns, vectors[number], carried.take(document) if carried.num_columns else carried)


def entry_of(prepared: Prepared, *, file: str, identity: str) -> Entry:
    """Build the ledger entry, still without sizes and hashes."""
    documents, tokens = prepared.documents, prepared.work.tokens
    return Entry(
        ordinal=prepared.shard.ordinal,
        file=file,
        pieces=prepared.shard.pieces,
        rows_read=documents.rows_read,
        rows_written=len(documents.ids),
        rows_quarantined=len(documents.rejected),
        rows_skipped=documents.rows_skipped,
        vectors=len(prepared.number),
        tokens=int(tokens.offsets[-1]),
        padded_tokens=prepared.work.padded_tokens,
        truncated=int(tokens.truncated[prepared.number].sum()),
        bytes=0,
        sha256="",
        quarantine_sha256="",
        identity=identity,
    )


def quarantine_lines(rejected: Iterable[Rejected]) -> bytes:
    """Encode quarantined rows as JSON lines."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rejected)


def shard_table(columns: Mapping[str, Any], vectors: FloatArray, carried: pa.Table) -> pa.Table:
    """Build the output table: keys, `embedding`, facts, carried columns."""
    # `columns` are Arrow arrays [n]; `vectors`, float32 [n, dim], become fixed_size_list<float32>[dim] uncopied.
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1), pa.float32())
    keys = {name: column for name, column in columns.items() if name in _KEY_COLUMNS}
    facts = {name: column for name, column in columns.items() if name not in _KEY_COLUMNS}
    rest = {name: carried.column(name) for name in carried.column_names}
    return pa.table({**keys, VECTOR: pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]), **facts, **rest})


def shard_bytes(table: pa.Table, *, metadata: Mapping[str, str], compression: str) -> memoryview:
    """Encode a table as Parquet; `metadata` becomes `embed.*` keys."""
    footer = {f"{_FOOTER}{key}": value for key, value in metadata.items()}
    others = [leaf for leaf in _leaves(table) if leaf != _VECTOR_LEAF]
    sink = pa.BufferOutputStream()
    # Vectors neither compress nor repeat: a dictionary, statistics or a codec would only cost time.
    pq.write_table(
        table.replace_schema_metadata(footer),
        sink,
        row_group_size=_ROW_GROUP_ROWS,
        compression=dict.fromkeys(others, compression) | {_VECTOR_LEAF: "none"},
        use_dictionary=others,
        write_statistics=others,
        write_page_checksum=True,
    )
    return memoryview(sink.getvalue())


def footer_of(schema: Any) -> dict[str, str]:
    """Return the texts of an output file's footer by name."""
    pairs = {key.decode(): value.decode(errors="replace") for key, value in (schema.metadata or {}).items()}
    return {name.removeprefix(_FOOTER): value for name, value in pairs.items() if name.startswith(_FOOTER)}


def read_footer(path: Path) -> dict[str, str]:
    """Read an output file's footer; empty for other files."""
    try:
        with pq.ParquetFile(path) as file:
            return footer_of(file.schema_arrow)
    except (pa.ArrowException, OSError, ValueError):
        return {}


def read_ids(path: Path, *, most_bytes: int) -> list[str]:
    """Read the `id` column of an output file.

    Raises Corrupt, for an id of more than `most_bytes` too.
    """
    checkpoint()
    remedy = f"run `embedmill verify {path.parent}`"
    try:
        # As a dictionary: a file of a few bytes may repeat a long text without end.
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=["id"]) as file:
            ids = file.read(columns=["id"]).column("id")
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"{path} is damaged ({error}); {remedy}") from error
    for part in ids.chunks:
        if (pc.max(pc.binary_length(part.dictionary)).as_py() or 0) > most_bytes:
            raise Corrupt(f"{path} has an id of more than `limits.id_bytes` = {most_bytes:,} bytes; {remedy}")
    return list(ids.to_pylist())


def _leaves(table: pa.Table) -> list[str]:
    """Return the Parquet paths of the columns of a table."""
    # The writer takes options per column by such paths only, and nothing but a written file has them.
    sink = pa.BufferOutputStream()
    pq.write_table(table.slice(0, 0), sink)
    parquet = pq.ParquetFile(sink.getvalue()).schema
    return [parquet.column(number).path for number in range(len(parquet))]
