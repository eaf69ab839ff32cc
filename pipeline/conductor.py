"""The conductor: config -> plan -> source -> text -> batch -> engine -> sink -> report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from msgspec import Struct

from pipeline import source
from pipeline.ahead import Ahead
from pipeline.batch.packer import pack
from pipeline.bundles import find_bundle, kept_contexts
from pipeline.choose import choose_target, sample_tokens
from pipeline.config import DEFAULT_MODEL, EngineTable, RunConfig, TextTable
from pipeline.engine.streams import Cancelled, Engine
from pipeline.engine.target import packing_for
from pipeline.errors import InputError, TooManyQuarantined
from pipeline.model.bundle import Bundle, check_files
from pipeline.plan import cut
from pipeline.prepare import Preparation, Prepared, entry_of, output_table
from pipeline.records import (
    Batch,
    EngineFacts,
    FloatArray,
    InputFile,
    Manifest,
    Model,
    Shard,
    Stages,
    Totals,
    Work,
)
from pipeline.report.environment import environment, version
from pipeline.report.html import html_report
from pipeline.report.progress import Progress
from pipeline.sink.fingerprint import fingerprint
from pipeline.sink.ledger import Job, Ledger, check_conservation, read_manifest, read_rejected, shard_files, total
from pipeline.sink.shard import read_ids, shard_bytes
from pipeline.text.tokenise import Tokeniser

_EMBED_TEXTS = 4096


class RunResult(Struct, frozen=True, kw_only=True):
    """What a run did: `totals` are of the whole output, `rows_before` those an earlier run had committed."""

    output: str
    model: str
    identity: str
    totals: Totals
    rows_before: int
    engine: EngineFacts | None
    stages: Stages


def run(config: RunConfig, *, quiet: bool = False) -> RunResult:
    """Embed a corpus into `config.output.path`, or finish what an earlier run began there.

    Raises a PipelineError: ConfigError, InputError, ModelError, DeviceError, OutputError, or
    TooManyQuarantined once everything is written.
    """
    started = time.monotonic()
    with Ledger(Path(config.output.path)) as ledger:
        bundle = find_bundle(config.model)
        model = bundle.model(config.text)
        files = source.discover(config.input)
        job_fingerprint = fingerprint(config, model.identity, files)
        ledger.check_fingerprint(job_fingerprint)
        if ledger.job is None:
            ledger.begin(Job(fingerprint=job_fingerprint, files=files, shards=plan(config, files)))
        before = total(ledger.entries.values())
        stages, engine = Stages(), None
        if ledger.pending():
            check_files(bundle)
            engine = _embed_pending(config, bundle, model, ledger, stages, quiet=quiet)
        stages.wall = time.monotonic() - started
        if read_manifest(ledger.folder) is None:
            manifest = _manifest(ledger, model, stages, engine)
            ledger.complete(manifest, html_report(manifest, read_rejected(ledger.folder, ledger.entries.values())))
        totals = total(ledger.entries.values())
    _check_quarantine(config, totals)
    return RunResult(
        output=config.output.path,
        model=model.name,
        identity=model.identity,
        totals=totals,
        rows_before=before.rows_read,
        engine=engine,
        stages=stages,
    )


def plan(config: RunConfig, files: list[InputFile]) -> list[Shard]:
    """The fixed list of shards. Raises InputError for unreadable files and missing columns."""
    source.resolve(files, config)
    return list(cut(source.survey(files, config), config.shard))


def _embed_pending(
    config: RunConfig, bundle: Bundle, model: Model, ledger: Ledger, stages: Stages, *, quiet: bool
) -> EngineFacts:
    """Prepare ahead, compute, and commit, all at the same time, shard by shard."""
    assert ledger.job is not None
    files, pending = ledger.job.files, ledger.pending()
    rows = sum(shard.rows for shard in ledger.job.shards)
    done = rows - sum(shard.rows for shard in pending)
    target = choose_target(
        bundle,
        model,
        config.text,
        config.engine,
        lambda: sample_tokens(config, model, files, pending),
        texts=sum(shard.rows for shard in pending),
    )
    packing = packing_for(target.provider, model, config.engine)
    with (
        Preparation(config, model, files, packing) as preparation,
        Progress(total_rows=rows, done_rows=done, quiet=quiet) as progress,
    ):
        if preparation.finds_duplicates:
            for entry in ledger.entries.values():
                preparation.remember(read_ids(ledger.folder / entry.file))
        with (
            _preparing(preparation, pending, stages) as prepared,
            Engine(model, target, packing, config.engine, contexts=kept_contexts()) as engine,
            _computing(engine, prepared, progress) as embedded,
        ):
            progress.say(
                f"embedding {rows - done} rows with {model.name}, {target.label}"
                f" ({engine.streams} x {engine.threads} threads)" + (f"; {done} are committed" if done else "")
            )
            for shard, vectors in embedded:
                began = time.monotonic()
                _commit(config, model, ledger, shard, vectors)
                stages.write += time.monotonic() - began
                progress.arrived(shard.documents.rows_read, with_work=bool(shard.work.batches))
            stages.compute, stages.streams = engine.busy_s, engine.streams
            return engine.facts()


def _preparing(preparation: Preparation, pending: list[Shard], stages: Stages) -> Ahead[Prepared]:
    """The next shard is read, tokenised and packed while one computes."""

    def stop_if_left() -> None:
        if ahead.closed:
            raise Cancelled

    def prepared() -> Iterator[Prepared]:
        for shard in pending:
            began = time.monotonic()
            ready = preparation.prepare(shard, between=stop_if_left)
            stages.prepare += time.monotonic() - began
            yield ready

    ahead = Ahead(prepared(), depth=1, name="prepare")
    return ahead


def _computing(engine: Engine, prepared: Ahead[Prepared], progress: Progress) -> Ahead[tuple[Prepared, FloatArray]]:
    """The next shard computes while one is written."""

    def count(shard: Prepared, batch: Batch) -> None:
        tokens = int(shard.work.tokens.lengths[batch.rows].sum())
        share = tokens / int(shard.work.tokens.offsets[-1])
        progress.advance(share * shard.documents.rows_read, tokens)

    def stop() -> None:
        engine.cancel()
        prepared.close()

    works = ((shard, shard.work) for shard in prepared)
    return Ahead(engine.embed(works, on_batch=count), depth=1, name="compute", on_close=stop)


def _commit(config: RunConfig, model: Model, ledger: Ledger, shard: Prepared, vectors: FloatArray) -> None:
    table = output_table(shard, vectors, chunked=config.text.chunk_tokens > 0)
    metadata = {
        "identity": model.identity,
        "model": model.name,
        "dim": str(model.dim),
        "max_tokens": str(model.max_tokens),
        "prompt": model.prompt,
        "normalized": str(model.normalized).lower(),
    }
    data = shard_bytes(table, metadata=metadata, compression=config.output.compression)
    ledger.commit(entry_of(shard, identity=model.identity), data, shard.documents.rejected)


def _manifest(ledger: Ledger, model: Model, stages: Stages, engine: EngineFacts | None) -> Manifest:
    """Raises ConservationError if the totals do not add up to the plan."""
    assert ledger.job is not None
    totals = total(ledger.entries.values())
    check_conservation(totals, planned=sum(shard.rows for shard in ledger.job.shards))
    return Manifest(
        version=version(),
        identity=model.identity,
        model={
            "name": model.name,
            "dim": model.dim,
            "max_tokens": model.max_tokens,
            "prompt": model.prompt,
            "normalized": model.normalized,
        },
        fingerprint=ledger.job.fingerprint,
        totals=totals,
        shards=shard_files(ledger.entries[shard.ordinal] for shard in ledger.job.shards),
        environment=environment(),
        stages=stages,
        engine=engine,
    )


def _check_quarantine(config: RunConfig, totals: Totals) -> None:
    if totals.rows_quarantined > config.rows.max_quarantined:
        folder = Path(config.output.path) / "quarantine"
        raise TooManyQuarantined(
            f"{totals.rows_written} rows are embedded in {config.output.path}, but {totals.rows_quarantined} were"
            f" quarantined and {config.rows.max_quarantined} are allowed; read {folder} for the reasons, then mend the"
            " input or raise rows.max_quarantined (--max-quarantined)"
        )


class Embedder:
    """A loaded model for texts at hand; a context manager. `embed` may be called many times."""

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        *,
        text: TextTable | None = None,
        engine: EngineTable | None = None,
    ) -> None:
        """Raises ModelError or DeviceError where the model or the provider cannot be used."""
        text, engine = text or TextTable(), engine or EngineTable()
        bundle = find_bundle(model)
        check_files(bundle)
        self.model = bundle.model(text)
        target = choose_target(bundle, self.model, text, engine, lambda: self.model.canaries.tokens, texts=0)
        self._packing = packing_for(target.provider, self.model, engine)
        self._tokeniser = Tokeniser(
            Path(self.model.tokenizer),
            max_tokens=self.model.max_tokens,
            prompt=self.model.prompt,
            lowercase=self.model.lowercase,
        )
        self._engine = Engine(self.model, target, self._packing, engine, contexts=kept_contexts())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.__exit__()

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """Vectors of n texts in their order, float32 [n, dim]. Raises InputError if one is no string."""
        _check_texts(texts)
        parts = [vectors for _, vectors in self._engine.embed(self._works(texts))]
        return np.concatenate([np.empty((0, self.model.dim), np.float32), *parts])

    def _works(self, texts: Sequence[str]) -> Iterator[tuple[int, Work]]:
        for first in range(0, len(texts), _EMBED_TEXTS):
            tokens = self._tokeniser.encode(texts[first : first + _EMBED_TEXTS])
            yield first, Work(tokens=tokens, batches=pack(tokens.lengths, self._packing))


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise InputError("texts is one string; pass a list of strings")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"texts[{number}] is {type(text).__name__}; expected a string")


def embed(
    texts: Sequence[str], *, model: str = DEFAULT_MODEL, prompt: str | None = None, provider: str = "auto"
) -> FloatArray:
    """Vectors of n texts in their order, float32 [n, dim].

    `prompt` is put before every text (None: the model's own default). The model is loaded for this
    call; use `Embedder` for many. Raises InputError, ModelError or DeviceError.
    """
    with Embedder(model, text=TextTable(prompt=prompt), engine=EngineTable(provider=provider)) as embedder:
        return embedder.embed(texts)
