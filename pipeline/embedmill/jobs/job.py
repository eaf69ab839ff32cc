"""Job: everything that a run, a plan, a tuning and a bench begin with, found once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from embedmill import source
from embedmill.base.config import RunConfig
from embedmill.base.records import Documents, Shard, Tokenised
from embedmill.base.signals import checkpoint
from embedmill.batch.prepare import Tokenisation
from embedmill.batch.tokens import Sample, joined
from embedmill.jobs.models import find_bundle
from embedmill.model.bundle import check_files
from embedmill.source.plan import plan
from embedmill.tune.batches import Settings, settings_for
from embedmill.tune.provider import choose_target

# The first, the middle and the last shard say what a job's texts are like.
_SAMPLE_SHARDS = 3


class Job:
    """Model, input files, columns and shards of a config; a sample of its texts, and the settings for them."""

    def __init__(self, config: RunConfig) -> None:
        """Raises ModelError, ConfigError for options that do not fit the model, InputError for missing files."""
        self.config = config
        self.bundle = find_bundle(config.model)
        self.model = self.bundle.model(config.text)
        self.files = source.discover(config.input)
        self._sampled: dict[int, tuple[list[str], Tokenised]] = {}

    @cached_property
    def columns(self) -> source.ResolvedColumns:
        """Columns of the input. Raises InputError for unreadable files and missing columns."""
        return source.resolve(self.files, self.config)

    @cached_property
    def tokenisation(self) -> Tokenisation:
        """Chunker and tokenizer. Raises ConfigError, ModelError."""
        return Tokenisation(self.model, self.config.text)

    def plan(self) -> list[Shard]:
        """Cut the input into the fixed list of shards. Raises InputError as `columns` does."""
        return plan(self.files, self.config, self.columns)

    def check_model(self) -> None:
        """Compare the model's files with their digests. Raises ModelError naming the one that differs."""
        check_files(self.bundle)

    def reader(self) -> source.Reader:
        """Open a reader of the job's shards."""
        return source.Reader(self.files, self.config, self.columns)

    def tokenise(self, shard: Shard, documents: Documents, between: Callable[[], None] = lambda: None) -> Tokenised:
        """Tokenise the documents of a shard; one that the sample read before is not tokenised again."""
        texts, tokenised = self._sampled.pop(shard.ordinal, (None, None))
        if tokenised is not None and texts == documents.texts:
            return tokenised
        return self.tokenisation.tokenise(documents, between=between)

    def sampled(self, shards: Sequence[Shard], count: int = _SAMPLE_SHARDS) -> Iterator[tuple[Documents, Tokenised]]:
        """Read and tokenise `count` shards, evenly spread over `shards`; `tokenise` takes them from here."""
        with self.reader() as reader:
            for shard in spread(shards, count):
                documents = reader.read(shard)
                tokenised = self.tokenise(shard, documents, checkpoint)
                self._sampled[shard.ordinal] = documents.texts, tokenised
                yield documents, tokenised

    def sample(self, shards: Sequence[Shard]) -> Sample:
        """Return tokens of the first, the middle and the last shard, to measure with."""
        parts = [tokenised.tokens for _, tokenised in self.sampled(shards)]
        rows = sum(shard.rows for shard in spread(shards, _SAMPLE_SHARDS))
        return Sample(tokens=joined(parts), rows=rows)

    def settings(self, sample: Callable[[], Sample], *, rows: int, measured: bool = True) -> Settings:
        """Decide where and how `rows` rows like those of `sample` are embedded; without `measured` nothing is tuned.

        Raises DeviceError where nothing works, or not what was asked for.
        """
        wish, text = self.config.engine, self.config.text
        target = choose_target(self.model, wish, lambda: sample().tokens, texts=rows)
        return settings_for(
            self.model, wish, target, sample, rows=rows if measured else 0, chunked=bool(text.chunk_tokens)
        )


def spread(shards: Sequence[Shard], count: int) -> list[Shard]:
    """Choose `count` shards, evenly spaced, the first and the last among them."""
    places = np.unique(np.linspace(0, len(shards) - 1, min(len(shards), count)).round().astype(int))
    return [shards[place] for place in places]
