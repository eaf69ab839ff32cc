"""Job of `embedmill tune`: find and cache the best batches."""

from __future__ import annotations

import logging
from pathlib import Path

from embedmill.base.config import RunConfig
from embedmill.base.errors import ConfigError, InputError
from embedmill.base.files import local
from embedmill.base.home import write_record
from embedmill.base.results import Tuning
from embedmill.jobs.job import Job
from embedmill.report.tuning import trial_words, tuning_page
from embedmill.tune.job import TuningJob
from embedmill.tune.kept import disturbed
from embedmill.tune.provider import choose_target
from embedmill.tune.space import is_open

LOG = logging.getLogger("embedmill")


def tune(config: RunConfig, *, time_s: float | None = None, chart: Path | None = None) -> Tuning:
    """Find and cache the best batches in about `time_s` seconds.

    By default 27 s, or 90 s for fixed shapes; `chart` is an HTML page of the search. Raises the errors of a run, and
    DeviceError where no batch fits under the ceiling.
    """
    if chart is not None:
        local.check_writable(chart)
    job = Job(config)
    job.check_model()
    shards = job.plan()
    tokens = job.sample(shards).tokens
    if not len(tokens.truncated):
        raise InputError("there is no text to tune with: the input has no rows that can be embedded")
    rows = sum(shard.rows for shard in shards)
    target = choose_target(job.model, config.engine, lambda: tokens, texts=rows)
    tuning_job = TuningJob(job.model, config.engine, target, tokens)
    if not is_open(tuning_job.space):
        raise ConfigError("the config leaves nothing to tune: unset engine.budget_tokens, streams or threads")
    with tuning_job.measurer() as measurer:
        tuning = tuning_job.tuned(
            measurer, time_s=time_s or tuning_job.time_s, say=lambda number, trial: LOG.info(trial_words(number, trial))
        )
    write_record(tuning_job.path, tuning)
    if disturbed(tuning):
        LOG.warning(
            "other programs used the processor meanwhile (trials got %.0f %% of it): runs use the catalogue's default;"
            " tune again when the machine is quiet",
            100 * (tuning.processor_share or 0),
        )
    if chart is not None:
        local.write_file(chart, tuning_page(tuning).encode(), scratch=chart.parent)
    return tuning
