"""Find and keep the best batches: `embedmill tune`."""

from __future__ import annotations

import logging
from pathlib import Path

from embedmill import source
from embedmill.base.config import RunConfig
from embedmill.base.errors import ConfigError, InputError, OutputError
from embedmill.base.files import local
from embedmill.base.home import write_record
from embedmill.base.results import Tuning
from embedmill.jobs.job import sample_of
from embedmill.jobs.models import find_bundle
from embedmill.model.bundle import check_files
from embedmill.report.page import STYLE
from embedmill.report.tuning import trial_words, tuning_page
from embedmill.source.plan import plan
from embedmill.tune.job import TuningJob
from embedmill.tune.kept import disturbed
from embedmill.tune.provider import choose_target
from embedmill.tune.space import is_open

LOG = logging.getLogger("embedmill")


def tune(config: RunConfig, *, time_s: float | None = None, chart: Path | None = None) -> Tuning:
    """Find and keep the best batches for a job's texts.

    It takes about `time_s` seconds: by default 27, or 90 where the device takes fixed shapes. `chart` is the path of an
    HTML page of the trials.

    Raises the errors that a run would, and DeviceError where no batch fits under the ceiling.
    """
    if chart is not None and not chart.parent.is_dir():
        raise OutputError(f"{chart} cannot be written: there is no folder {chart.parent}; make it, or name another")
    bundle = find_bundle(config.model)
    check_files(bundle)
    model = bundle.model(config.text)
    files = source.discover(config.input)
    shards = plan(config, files)
    tokens = sample_of(config, model, files, shards).tokens
    if not len(tokens.truncated):
        raise InputError("there is no text to tune with: the input has no rows that can be embedded")
    rows = sum(shard.rows for shard in shards)
    target = choose_target(bundle, model, config.text, config.engine, lambda: tokens, texts=rows)
    job = TuningJob(bundle, model, config.text, config.engine, target, tokens)
    if not is_open(job.space):
        raise ConfigError("the config leaves nothing to tune: unset engine.budget_tokens, streams or threads")
    with job.measurer() as measurer:
        tuning = job.tuned(
            measurer, time_s=time_s or job.time_s, say=lambda number, trial: LOG.info(trial_words(number, trial))
        )
    write_record(job.path, tuning)
    if disturbed(tuning):
        LOG.warning(
            "other programs used the processor meanwhile (trials got %.0f %% of it): runs use the catalogue's default;"
            " tune again when the machine is quiet",
            100 * (tuning.processor_share or 0),
        )
    if chart is not None:
        local.write_file(chart, tuning_page(tuning, STYLE).encode(), scratch=chart.parent)
    return tuning
