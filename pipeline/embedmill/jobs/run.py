"""The conductor: config -> plan -> source -> text -> batch -> engine -> sink -> report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from embedmill import source
from embedmill.base.config import RunConfig
from embedmill.base.environment import environment, version
from embedmill.base.errors import TooManyQuarantined
from embedmill.base.prefetch import Prefetch
from embedmill.base.records import (
    Batch,
    FloatArray,
    Model,
    Prepared,
    Shard,
    Stages,
    Totals,
)
from embedmill.base.results import EngineFacts, Manifest
from embedmill.batch.prepare import Preparation
from embedmill.batch.tokens import Sample
from embedmill.engine.engine import Engine
from embedmill.engine.runners.base import Cancelled
from embedmill.jobs.job import sample_of
from embedmill.jobs.models import find_bundle
from embedmill.jobs.report import page_of
from embedmill.model.bundle import Bundle, check_files
from embedmill.report.progress import Progress
from embedmill.report.run import RunResult
from embedmill.sink.fingerprint import fingerprint
from embedmill.sink.folder import (
    OutputJob,
    check_conservation,
    read_manifest,
    shard_files,
    total,
)
from embedmill.sink.ledger import Ledger
from embedmill.sink.shard import entry_of, output_table, read_ids, shard_bytes
from embedmill.source import ResolvedColumns
from embedmill.source.plan import plan
from embedmill.tune.batches import Settings, engine_of, note_rate, settings_for
from embedmill.tune.provider import choose_target


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
        columns = source.resolve(files, config)
        if ledger.job is None:
            ledger.begin(OutputJob(fingerprint=job_fingerprint, files=files, shards=plan(files, config, columns)))
        before = total(ledger.entries.values())
        stages, engine = Stages(), None
        if ledger.pending():
            check_files(bundle)
            engine, stages = _embed_pending(config, bundle, model, ledger, columns, quiet=quiet)
        stages.wall = time.monotonic() - started
        if read_manifest(ledger.folder) is None:
            manifest = _manifest(ledger, model, stages, engine)
            ledger.complete(manifest, page_of(ledger, manifest))
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


def _embed_pending(
    config: RunConfig, bundle: Bundle, model: Model, ledger: Ledger, columns: ResolvedColumns, *, quiet: bool
) -> tuple[EngineFacts, Stages]:
    """Prepare ahead, compute, and commit, all at the same time, shard by shard."""
    assert ledger.job is not None
    files, pending, stages = ledger.job.files, ledger.pending(), Stages()
    rows = sum(shard.rows for shard in ledger.job.shards)
    done = rows - sum(shard.rows for shard in pending)
    sample = cache(lambda: sample_of(config, model, files, columns, pending))
    settings = _settings(config, bundle, model, sample, rows=rows - done)
    if settings.tuning is not None:
        ledger.write_tuning(settings.tuning)
    with (
        Preparation(config, model, files, columns, settings.packing) as preparation,
        Progress(total_rows=rows, done_rows=done, quiet=quiet) as progress,
    ):
        if preparation.finds_duplicates:
            for entry in ledger.entries.values():
                preparation.remember(read_ids(ledger.folder / entry.file))
        with (
            _preparing(preparation, pending, stages) as prepared,
            engine_of(model, settings, progress.say) as engine,
            _computing(engine, prepared, progress) as embedded,
        ):
            progress.say(
                f"embedding {rows - done} rows with {model.name}, {engine.target.label}"
                f" ({engine.streams} x {engine.threads} threads)" + (f"; {done} are committed" if done else "")
            )
            for shard, vectors in embedded:
                began = time.monotonic()
                _commit(config, model, ledger, shard, vectors)
                stages.write += time.monotonic() - began
                progress.arrived(shard.documents.rows_read, with_work=bool(shard.work.batches))
            stages.compute, stages.streams = engine.busy_s, engine.streams
            note_rate(settings, tokens=engine.tokens, busy_s=engine.busy_s, streams=engine.streams)
            return engine.facts(), stages


def _settings(config: RunConfig, bundle: Bundle, model: Model, sample: Callable[[], Sample], *, rows: int) -> Settings:
    """Where and how so many rows like those of `sample` are embedded."""
    target = choose_target(bundle, model, config.text, config.engine, lambda: sample().tokens, texts=rows)
    return settings_for(bundle, model, config.text, config.engine, target, sample, rows=rows)


def _preparing(preparation: Preparation, pending: list[Shard], stages: Stages) -> Prefetch[Prepared]:
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

    ahead = Prefetch(prepared(), depth=1, name="prepare")
    return ahead


def _computing(
    engine: Engine, prepared: Prefetch[Prepared], progress: Progress
) -> Prefetch[tuple[Prepared, FloatArray]]:
    """The next shard computes while one is written."""

    def count(shard: Prepared, batch: Batch) -> None:
        tokens = int(shard.work.tokens.lengths[batch.rows].sum())
        share = tokens / int(shard.work.tokens.offsets[-1])
        progress.advance(share * shard.documents.rows_read, tokens)

    def stop() -> None:
        engine.cancel()
        prepared.close()

    works = ((shard, shard.work) for shard in prepared)
    return Prefetch(engine.embed(works, on_batch=count), depth=1, name="compute", on_close=stop)


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
