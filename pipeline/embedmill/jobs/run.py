"""Job of `embedmill run`, from config to report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from embedmill.base.config import RunConfig
from embedmill.base.environment import environment, version
from embedmill.base.errors import TokenizerFailed, TooManyQuarantined
from embedmill.base.files.sealed import digest_in
from embedmill.base.records import FloatArray, Model, Prepared
from embedmill.base.results import EngineFacts, Manifest, Stages, Totals, counted
from embedmill.jobs.executors.isolation import fatal_rows
from embedmill.jobs.executors.local import embedding
from embedmill.jobs.job import Job
from embedmill.jobs.report import page_of
from embedmill.report.progress import Progress
from embedmill.report.run import RunResult
from embedmill.sink.fingerprint import fingerprint
from embedmill.sink.folder import (
    LEDGER,
    SET_ASIDE,
    TUNING,
    OutputJob,
    check_conservation,
    read_manifest,
    read_set_aside,
    shard_files,
    total,
)
from embedmill.sink.ledger import Ledger
from embedmill.sink.shard import entry_of, output_table, quarantine_lines, read_ids, shard_bytes
from embedmill.tune.batches import note_rate


def run(config: RunConfig, *, quiet: bool = False) -> RunResult:
    """Embed a corpus into `config.output.path`, or resume an earlier run.

    Raises ConfigError, InputError, ModelError, DeviceError, OutputError; TooManyQuarantined after writing everything.
    """
    started = time.monotonic()
    with Ledger(Path(config.output.path)) as ledger:
        job = Job(config)
        job_fingerprint = fingerprint(config, job.model.identity, job.files)
        # A refusal should come before the model is checked and any text is read.
        ledger.check_fingerprint(job_fingerprint)
        if ledger.job is None:
            ledger.begin(OutputJob(fingerprint=job_fingerprint, shards=job.plan()))
        before = total(ledger.entries.values())
        stages, engine = Stages(), None
        if ledger.pending():
            job.check_model()
            engine = _embed_all(job, ledger, stages, quiet=quiet)
        stages.wall = time.monotonic() - started
        if read_manifest(ledger.folder) is None:
            manifest = _manifest(ledger, job, stages, engine)
            ledger.complete(manifest, page_of(ledger, manifest))
        totals = total(ledger.entries.values())
    # Last, so that the output is complete and a higher limit needs no second run.
    _check_quarantine(config, totals)
    return RunResult(
        output=config.output.path,
        model=job.model.name,
        identity=job.model.identity,
        totals=totals,
        rows_before=before.rows_read,
        left_out=job.left_out,
        engine=engine,
        stages=stages,
    )


def _embed_all(job: Job, ledger: Ledger, stages: Stages, *, quiet: bool) -> EngineFacts:
    """Embed pending shards, past rows that cannot be tokenised."""
    known = -1
    while True:
        try:
            return _embed_pending(job, ledger, stages, quiet=quiet)
        except TokenizerFailed:
            # Found rows are set aside as it begins again; where there are none, nothing would change.
            if len(job.set_aside) == known:
                raise
            known = len(job.set_aside)


def _embed_pending(job: Job, ledger: Ledger, stages: Stages, *, quiet: bool) -> EngineFacts:
    """Embed and commit pending shards."""
    pending = ledger.pending()
    job.attempt = ledger.attempt
    assert ledger.job is not None
    job.set_aside = read_set_aside(ledger.folder, ledger.job)
    for found in fatal_rows(job, suspect) if (suspect := ledger.died_at()) is not None else ():
        job.set_aside += found
        ledger.set_aside(job.set_aside)
    rows = ledger.planned_rows
    done = rows - sum(shard.rows for shard in pending)
    settings = job.settings(cache(lambda: job.sample(pending)), rows=rows - done)
    if settings.tuning is not None:
        ledger.write_tuning(settings.tuning)
    with (
        Progress(total_rows=rows, done_rows=done, quiet=quiet) as progress,
        embedding(job, settings, pending, _committed_ids(ledger, job.config.limits.id_bytes), progress, stages) as (
            engine,
            embedded,
        ),
    ):
        progress.say(
            f"embedding {counted(rows - done, 'row')} with {job.model.name}, {engine.target.label}"
            f" ({engine.streams} x {engine.threads} threads)" + (f"; {done} are committed" if done else "")
        )
        for shard, vectors in embedded:
            began = time.monotonic()
            _commit(job, ledger, shard, vectors)
            stages.write += time.monotonic() - began
            progress.committed(shard.documents.rows_read, with_work=bool(shard.work.batches))
        stages.compute, stages.streams = engine.busy_s, engine.streams
        note_rate(settings, tokens=engine.tokens, busy_s=engine.busy_s)
        return engine.facts()


def _committed_ids(ledger: Ledger, most_bytes: int) -> Iterator[list[str]]:
    """Yield ids by committed shard, to find later duplicates."""
    for entry in ledger.entries.values():
        yield read_ids(ledger.folder / entry.file, most_bytes=most_bytes)


def _commit(job: Job, ledger: Ledger, shard: Prepared, vectors: FloatArray) -> None:
    assert ledger.job is not None
    model, config, ordinal = job.model, job.config, shard.shard.ordinal
    table = output_table(shard, vectors, chunked=config.text.chunk_tokens > 0)
    facts = {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in _facts(model).items()}
    # Parquet metadata is text; the order of its keys is part of a shard's bytes.
    metadata = {"identity": model.identity, "job": ledger.job.digest, "shard": str(ordinal), "model": facts.pop("name")}
    lines = quarantine_lines(shard.documents.rejected)
    metadata |= {"quarantine": hashlib.sha256(lines).hexdigest() if lines else ""}
    data = shard_bytes(table, metadata=metadata | facts, compression=config.output.compression)
    entry = entry_of(shard, file=ledger.job.part(ordinal), identity=model.identity)
    ledger.commit(entry, data, lines)


def _facts(model: Model) -> dict[str, str | int | bool]:
    return {name: getattr(model, name) for name in ("name", "dim", "max_tokens", "prompt", "normalized")}


def _manifest(ledger: Ledger, job: Job, stages: Stages, engine: EngineFacts | None) -> Manifest:
    """Build the manifest. Raises ConservationError for a wrong total."""
    assert ledger.job is not None
    totals = total(ledger.entries.values())
    check_conservation(totals, planned=ledger.planned_rows)
    return Manifest(
        version=version(),
        identity=job.model.identity,
        job=ledger.job.digest,
        tuning=digest_in(ledger.folder / TUNING),
        set_aside=digest_in(ledger.folder / LEDGER / SET_ASIDE),
        model=_facts(job.model),
        fingerprint=ledger.job.fingerprint,
        totals=totals,
        shards=shard_files(ledger.entries[shard.ordinal] for shard in ledger.job.shards),
        environment=environment(),
        left_out=job.left_out,
        stages=stages,
        engine=engine,
    )


def _check_quarantine(config: RunConfig, totals: Totals) -> None:
    if totals.rows_quarantined > config.rows.max_quarantined:
        folder = Path(config.output.path) / "quarantine"
        raise TooManyQuarantined(
            f"{counted(totals.rows_written, 'row')} embedded in {config.output.path}, but {totals.rows_quarantined}"
            f" were quarantined and {config.rows.max_quarantined} are allowed; read {folder} for the reasons, then mend"
            " the input or raise rows.max_quarantined (--max-quarantined)"
        )
