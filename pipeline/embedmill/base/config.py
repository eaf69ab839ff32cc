"""Configuration structs: the tables and keys of `configs/*.toml`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

DEFAULT_MODEL = "all-MiniLM-L6-v2"
KIB, MIB = 1 << 10, 1 << 20

RowPolicy = Literal["quarantine", "skip", "fail"]
CarriedType = Literal["string", "int64", "float64", "bool"]
PositiveInt = Annotated[int, Meta(ge=1)]
# ONNX Runtime starts as many threads as it is told to; a mistyped number must not exhaust the machine.
ThreadCount = Annotated[int, Meta(ge=1, le=1024)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NaturalInt = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(gt=0, le=1)]

# Reserved: a carried column of one of these names would replace ours.
OUTPUT_COLUMNS = frozenset({"id", "chunk", "char_start", "char_end", "embedding", "n_tokens", "truncated", "text_hash"})


def about(text: str) -> Meta:
    """Describe a field for the generated configuration reference."""
    return Meta(description=text)


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base class of config tables; unknown keys are errors."""


class InputTable(Table, frozen=True):
    """The input files."""

    paths: Annotated[tuple[str, ...], about("Files, folders (recursive), globs; relative to the current folder.")] = ()
    format: Annotated[
        Literal["auto", "parquet", "jsonl", "csv"],
        about(
            "`auto` goes by the ending: .parquet, .pq; .jsonl, .ndjson, .json; .csv, .tsv; text also with .gz, .zst,"
            " .bz2 or .xz. A named format also reads files of a folder whose ending is unknown."
        ),
    ] = "auto"
    encoding: Annotated[
        str,
        about(
            "Encoding of text files, as Python names it: cp1252, shift_jis, utf-16-le. `auto` is UTF-8. A byte order"
            " mark (UTF-8, UTF-16, UTF-32) counts in either case."
        ),
    ] = "auto"
    csv_delimiter: Annotated[
        Annotated[str, Meta(min_length=1, max_length=1)] | None,
        about(
            "The character between CSV fields. Unset: the first of comma, semicolon, tab and | by which the header has"
            " the job's columns. Files named .tsv always use a tab."
        ),
    ] = None
    csv_quote: Annotated[
        Annotated[str, Meta(max_length=1)] | None,
        about('The character around CSV fields; empty: none. Unset: `"`, and none in files named .tsv.'),
    ] = None
    csv_escape: Annotated[
        Annotated[str, Meta(max_length=1)],
        about("The character that makes the next one literal, such as a backslash (then \\N is null). Empty: none."),
    ] = ""
    csv_header: Annotated[bool, about("Whether CSV files begin with column names. If not, see `columns.names`.")] = True


class ColumnsTable(Table, frozen=True):
    """Input columns."""

    text: Annotated[
        str, about("The column that is embedded. `message.text` is a field inside a column, in JSON and Parquet.")
    ] = "text"
    id: Annotated[
        str | None,
        about(
            "The column that names a row, of any scalar type; written as text. Unset: column `id` where"
            " the first file has one, else `FILE:ROW`, rows counted from 1. Empty: always `FILE:ROW`."
        ),
    ] = None
    carry: Annotated[
        tuple[str, ...],
        about(
            "Columns copied to the output. Parquet columns keep their type. A folder `lang=en` in the path of a file"
            " is a column `lang`, unless the file has one."
        ),
    ] = ()
    types: Annotated[
        dict[str, CarriedType],
        about(
            "Types of carried JSONL and CSV columns: string, int64, float64 or bool. Default: string; a JSON"
            " value that is no string is then carried as its JSON text."
        ),
    ] = {}
    carry_as: Annotated[
        dict[str, str], about('Names in the output of carried columns, such as { text_hash = "their_hash" }.')
    ] = {}
    names: Annotated[
        tuple[str, ...],
        about('All columns of CSV files without a header, in order. Unset: they are named "1", "2", "3".'),
    ] = ()


class RowsTable(Table, frozen=True):
    """Policies for rows that cannot be embedded.

    `quarantine` writes the row with its reason to OUT/quarantine, `skip` only counts it, `fail` ends
    the run with exit code 3. Every row is accounted for in the ledger either way.
    """

    null_text: Annotated[RowPolicy, about("The text is null or absent.")] = "quarantine"
    empty_text: Annotated[
        Literal["quarantine", "skip", "fail", "embed"],
        about("The text is empty or only white space; `embed` embeds it anyway."),
    ] = "quarantine"
    wrong_type: Annotated[RowPolicy, about("The text, id or a typed carried column has another type.")] = "quarantine"
    malformed: Annotated[RowPolicy, about("Broken JSON or CSV, invalid UTF-8, a lone surrogate.")] = "quarantine"
    too_long: Annotated[RowPolicy, about("A row or text over the limits in [limits].")] = "quarantine"
    duplicate_id: Annotated[
        Literal["quarantine", "skip", "fail", "keep"],
        about("An earlier row of this job has the same id; `keep` does not check for duplicates."),
    ] = "quarantine"
    max_quarantined: Annotated[NaturalInt, about("A run that quarantines more rows ends with exit code 7.")] = 0


class ShardTable(Table, frozen=True):
    """Shard size; a shard is committed and resumed whole."""

    rows: Annotated[PositiveInt, about("At most this many rows.")] = 2048
    text_bytes: Annotated[PositiveInt, about("At most this many bytes of text (one row may exceed it).")] = 16 * MIB


class TextTable(Table, frozen=True):
    """Preparation of texts: prompt, truncation, chunks."""

    prompt: Annotated[str | None, about("Put before every text. Unset: the model's default; empty: none.")] = None
    prompt_name: Annotated[str | None, about("A named prompt (`embedmill model show`), instead of `prompt`.")] = None
    max_tokens: Annotated[
        # [CLS], one token, [SEP].
        Annotated[int, Meta(ge=3)] | None,
        about("Truncate at this many tokens, special tokens included. Unset: the model's own limit."),
    ] = None
    chunk_tokens: Annotated[NaturalInt, about("Tokens per chunk, one vector each; 0 embeds each text whole.")] = 0
    chunk_overlap: Annotated[NaturalInt, about("Tokens that a chunk shares with the one before it.")] = 0


class EngineTable(Table, frozen=True):
    """Provider, device and batches; all may change on a resume."""

    # A string and no Literal: the catalogue of providers is in a higher room.
    provider: Annotated[str, about("A provider (`embedmill doctor` lists them), or `auto`: the fastest one.")] = "auto"
    device: Annotated[
        str | None,
        about(
            "Which device of the provider: its number, LUID or a part of its name in `embedmill doctor`; or"
            " discrete, integrated, gpu, npu, cpu. Unset: the most powerful."
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "fp16"],
        about("The arithmetic of the device. `auto`: the provider's default, or the fastest in a measurement."),
    ] = "auto"
    streams: Annotated[ThreadCount | None, about("Batches that run at once. Unset: one per usable core.")] = None
    threads: Annotated[ThreadCount | None, about("Threads per batch. Unset: usable cores divided by streams.")] = None
    budget_tokens: Annotated[PositiveInt | None, about("Padded tokens per batch, at most. Unset: provider's own.")] = (
        None
    )
    # Providers without such a setting ignore it; `memory_fraction` holds for all.
    memory_bytes: Annotated[PositiveInt | None, about("Device memory limit, if supported (CUDA). Unset: none.")] = None
    memory_fraction: Annotated[Share, about("The share of the free memory that batches may use.")] = 0.85
    timeout_s: Annotated[
        PositiveFloat,
        about(
            "After this many seconds without a finished batch (opening a session included) the device counts as hung:"
            " its process is killed and the work continues in a new one. On the CPU the run ends, and can be resumed."
        ),
    ] = 300.0
    telemetry: Annotated[
        bool,
        about(
            "Let ONNX Runtime report its use to Microsoft. `ORT_DISABLE_TELEMETRY` or `DO_NOT_TRACK` in the environment"
            " forbids it all the same."
        ),
    ] = False
    tune: Annotated[bool, about("Tune the batches before a long run, and use the result of an earlier tuning.")] = True


class OutputTable(Table, frozen=True):
    """The output folder."""

    path: Annotated[str, about("The output folder; created if absent, resumed if it holds the same job.")] = "out"
    compression: Annotated[
        Literal["zstd", "snappy", "none"], about("Parquet compression of every column but the vectors.")
    ] = "zstd"


class LimitsTable(Table, frozen=True):
    """Limits against hostile or broken input."""

    record_bytes: Annotated[PositiveInt, about("A longer JSONL line or CSV row is not read into memory.")] = 64 * MIB
    text_bytes: Annotated[PositiveInt, about("A longer text (UTF-8 bytes) is not tokenised.")] = 16 * MIB
    id_bytes: Annotated[PositiveInt, about("A longer id is not taken: its row counts as too long.")] = 64 * KIB
    carried_bytes: Annotated[
        Annotated[int, Meta(ge=1, le=2**31 - 1)],
        about("A shard whose carried columns have more bytes ends the run; smaller shards (`shard.rows`) have less."),
    ] = 128 * MIB
    expansion: Annotated[
        PositiveInt,
        about("A packed file that expands to over 1 GiB, and to more than this many times its size, is refused."),
    ] = 2000
    window_log: Annotated[
        Annotated[int, Meta(ge=10, le=31)],
        about(
            "A .zst file with a larger window is refused, and a .xz file with a larger dictionary: 27 (128 MiB of"
            " memory) is what `zstd --long` writes, 26 what `xz -9` does."
        ),
    ] = 27


class RunConfig(Table, frozen=True):
    """One job: every option of `embedmill run`."""

    model: Annotated[
        str, about("A bundle's name (`embedmill model list`), a bundle folder, or a sentence-transformers folder.")
    ] = DEFAULT_MODEL
    input: InputTable = InputTable()
    columns: ColumnsTable = ColumnsTable()
    rows: RowsTable = RowsTable()
    shard: ShardTable = ShardTable()
    text: TextTable = TextTable()
    engine: EngineTable = EngineTable()
    output: OutputTable = OutputTable()
    limits: LimitsTable = LimitsTable()
