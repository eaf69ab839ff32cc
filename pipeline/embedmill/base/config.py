"""What a `configs/*.toml` may say: the structs, and their checks on load."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

DEFAULT_MODEL = "all-MiniLM-L6-v2"
MIB = 1 << 20

RowPolicy = Literal["quarantine", "skip", "fail"]
CarriedType = Literal["string", "int64", "float64", "bool"]
PositiveInt = Annotated[int, Meta(ge=1)]
ThreadCount = Annotated[int, Meta(ge=1, le=1024)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NaturalInt = Annotated[int, Meta(ge=0)]
Part = Annotated[float, Meta(gt=0, le=1)]


OUTPUT_COLUMNS = frozenset({"id", "chunk", "char_start", "char_end", "embedding", "n_tokens", "truncated", "text_hash"})


def about(text: str) -> Meta:
    """A field's description, from which the config reference is generated."""
    return Meta(description=text)


class Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every config table."""


class InputTable(Table, frozen=True):
    """What is read."""

    paths: Annotated[
        tuple[str, ...],
        about("Files, folders (read recursively) and globs, relative to where the command runs."),
    ] = ()
    format: Annotated[
        Literal["auto", "parquet", "jsonl", "csv"],
        about("`auto` goes by the ending: .parquet, .jsonl, .ndjson, .csv, .tsv; text also with .gz or .zst."),
    ] = "auto"
    csv_delimiter: Annotated[
        str, Meta(min_length=1, max_length=1), about("One character between CSV fields; .tsv files use a tab.")
    ] = ","


class ColumnsTable(Table, frozen=True):
    """Which columns are used."""

    text: Annotated[str, about("The column that is embedded.")] = "text"
    id: Annotated[
        str | None,
        about(
            "The column that names a row (strings or integers; written as strings). Unset: column `id` where"
            " the first file has one, else `FILE:ROW`, rows counted from 1."
        ),
    ] = None
    carry: Annotated[
        tuple[str, ...],
        about("Columns copied to the output beside the vector. Parquet columns keep their type."),
    ] = ()
    types: Annotated[
        dict[str, CarriedType],
        about(
            "Types of carried JSONL and CSV columns: string, int64, float64 or bool. Default: string; a JSON"
            " value that is no string is then carried as its JSON text."
        ),
    ] = {}


class RowsTable(Table, frozen=True):
    """What happens to rows that cannot be embedded.

    `quarantine` writes the row with its reason to OUT/quarantine, `skip` only counts it, `fail` ends
    the run with exit code 3. Every row is accounted for in the ledger either way.
    """

    null_text: Annotated[RowPolicy, about("The text is null or absent.")] = "quarantine"
    empty_text: Annotated[
        Literal["quarantine", "skip", "fail", "embed"],
        about("The text is empty or only white space; `embed` embeds it all the same."),
    ] = "quarantine"
    wrong_type: Annotated[RowPolicy, about("The text, the id or a typed carried column has another type.")] = (
        "quarantine"
    )
    malformed: Annotated[RowPolicy, about("Broken JSON or CSV, invalid UTF-8, a lone surrogate.")] = "quarantine"
    too_long: Annotated[RowPolicy, about("A row or text over the limits in [limits].")] = "quarantine"
    duplicate_id: Annotated[
        Literal["quarantine", "skip", "fail", "keep"],
        about("An id that an earlier row of this job has; `keep` does not look for duplicates."),
    ] = "quarantine"
    max_quarantined: Annotated[
        NaturalInt, about("A run that quarantines more rows than this finishes with exit code 7.")
    ] = 0


class ShardTable(Table, frozen=True):
    """How the input is cut: a shard is one output file, and the unit of commit and resume."""

    rows: Annotated[PositiveInt, about("At most so many rows.")] = 2048
    text_bytes: Annotated[PositiveInt, about("At most so many bytes of input text (one row may exceed it).")] = 16 * MIB


class TextTable(Table, frozen=True):
    """What is done to a text before the model sees it."""

    prompt: Annotated[
        str | None,
        about("Put before every text. Unset: the model's own default prompt; empty: none."),
    ] = None
    prompt_name: Annotated[
        str | None, about("One of the model's named prompts (`embedmill model show`), instead of `prompt`.")
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=3)] | None,
        about("Truncate at so many tokens, special tokens included. Unset: the model's own limit."),
    ] = None
    chunk_tokens: Annotated[
        NaturalInt,
        about("Cut each text into chunks of so many tokens, one vector each; 0 embeds a text whole."),
    ] = 0
    chunk_overlap: Annotated[NaturalInt, about("Tokens that a chunk shares with the one before it.")] = 0


class EngineTable(Table, frozen=True):
    """What computes; nothing here changes the output, so all of it may differ on a resume."""

    provider: Annotated[str, about("A provider (`embedmill doctor` tries them), or `auto`: the fastest one.")] = "auto"
    device: Annotated[
        str | None,
        about(
            "Which device of the provider: its number, LUID or a part of its name in `embedmill doctor`; or"
            " discrete, integrated, gpu, npu, cpu. Unset: the most powerful."
        ),
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "fp16"],
        about("What the device computes in. `auto`: the provider's default, or what measured fastest."),
    ] = "auto"
    streams: Annotated[ThreadCount | None, about("Batches that run at once. Unset: one per usable core.")] = None
    threads: Annotated[
        ThreadCount | None, about("Threads inside each batch. Unset: the usable cores divided by the streams.")
    ] = None
    budget_tokens: Annotated[
        PositiveInt | None,
        about("Padded tokens per batch: batch times sequence stays below it. Unset: the provider's own."),
    ] = None
    memory_bytes: Annotated[
        PositiveInt | None,
        about("The most device memory a provider may take, where it knows such a limit (CUDA). Unset: no limit."),
    ] = None
    memory_fraction: Annotated[Part, about("The part of the free memory that batches may take.")] = 0.85
    timeout_s: Annotated[
        PositiveFloat,
        about(
            "When so many seconds pass without a finished batch (opening a session included), the device hangs: its"
            " process is ended and the work goes on in a new one. On the CPU the run ends, and can be resumed."
        ),
    ] = 300.0
    tune: Annotated[bool, about("Find the best batches before a long run, and use what was found before.")] = True


class OutputTable(Table, frozen=True):
    """What is written."""

    path: Annotated[str, about("The output folder; made if absent, resumed if it holds this same job.")] = "out"
    compression: Annotated[
        Literal["zstd", "snappy", "none"], about("Parquet compression of every column but the vectors.")
    ] = "zstd"


class LimitsTable(Table, frozen=True):
    """Bounds on hostile or broken input."""

    record_bytes: Annotated[PositiveInt, about("A longer JSONL line or CSV row is not read into memory.")] = 64 * MIB
    text_bytes: Annotated[PositiveInt, about("A longer text (UTF-8 bytes) is not tokenised.")] = 16 * MIB
    expansion: Annotated[
        PositiveInt,
        about("A .gz or .zst file that gives more than 1 GiB, and more than so many times its size, is refused."),
    ] = 2000


class RunConfig(Table, frozen=True):
    """One job: everything `embedmill run` can be told."""

    model: Annotated[
        str,
        about("A bundle's name (`embedmill model list`), a bundle folder, or a sentence-transformers folder."),
    ] = DEFAULT_MODEL
    input: InputTable = InputTable()
    columns: ColumnsTable = ColumnsTable()
    rows: RowsTable = RowsTable()
    shard: ShardTable = ShardTable()
    text: TextTable = TextTable()
    engine: EngineTable = EngineTable()
    output: OutputTable = OutputTable()
    limits: LimitsTable = LimitsTable()
