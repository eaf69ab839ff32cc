"""Job: the common beginning of run, plan, tune and bench."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import numpy as np

from embedmill import source
from embedmill.base.config import RunConfig
from embedmill.base.records import Documents, InputFile, SetAside, Shard, Tokenised
from embedmill.base.signals import checkpoint
from embedmill.batch.prepare import Tokenisation
from embedmill.batch.tokens import Sample, joined
from embedmill.jobs.models import find_bundle
from embedmill.model.bundle import check_files
from embedmill.source.plan import plan
from embedmill.tune.batches import Settings, settings_for
from embedmill.tune.provider import choose_target

# The first, the middle and the last shard: enough to know the lengths of a job's texts.
_SAMPLE_SHARDS = 3


class Job:
    """Model, files, columns, shards, text sample and settings."""

    def __init__(self, config: RunConfig, files: list[InputFile] | None = None) -> None:
        """Find model and files. Raises ModelError, ConfigError, InputError."""
        self.config = config
        # First what costs nothing: a model may have to be fetched.
        found = source.discover(config.input) if files is None else source.Discovered(files, {})
        self.files, self.left_out = found.files, found.left_out
        self.bundle = find_bundle(config.model)
        self.model = self.bundle.model(config.text)
        # Of rows that ended a process before; and what notes that a shard is being prepared.
        self.set_aside: list[SetAside] = []
        self.attempt: Callable[[Shard], AbstractContextManager[None]] = lambda _: nullcontext()
        self._sampled: dict[int, tuple[list[str], Tokenised]] = {}

    @cached_property
    def columns(self) -> source.ResolvedColumns:
        """Resolve the columns. Raises InputError for unreadable or missing ones."""
        return source.resolve(self.files, self.config)

    @cached_property
    def tokenisation(self) -> Tokenisation:
        """Load chunker and tokenizer. Raises ConfigError, ModelError."""
        return Tokenisation(self.model, self.config.text)

    def plan(self) -> list[Shard]:
        """Cut the input into shards. Raises InputError as `columns` does."""
        return plan(self.files, self.config, self.columns)

    def check_model(self) -> None:
        """Check the model's digests. Raises ModelError naming a file."""
        check_files(self.bundle)

    def reader(self) -> source.Reader:
        """Open a reader of the job's shards."""
        return source.Reader(self.files, self.config, self.columns, self.set_aside)

    def tokenise(self, shard: Shard, documents: Documents, between: Callable[[], None] = lambda: None) -> Tokenised:
        """Tokenise documents of a shard, unless sampled before."""
        # The file may have changed since it was sampled, so the texts are compared.
        texts, tokenised = self._sampled.pop(shard.ordinal, (None, None))
        if tokenised is not None and texts == documents.texts:
            return tokenised
        return self.tokenisation.tokenise(documents.texts, between=between)

    def sampled(self, shards: Sequence[Shard], count: int = _SAMPLE_SHARDS) -> Iterator[tuple[Documents, Tokenised]]:
        """Read and tokenise `count` shards, evenly spread, for `tokenise` too."""
        with self.reader() as reader:
            for shard in spread(shards, count):
                with self.attempt(shard):
                    documents = reader.read(shard)
                    tokenised = self.tokenise(shard, documents, checkpoint)
                self._sampled[shard.ordinal] = documents.texts, tokenised
                yield documents, tokenised

    def sample(self, shards: Sequence[Shard]) -> Sample:
        """Sample the tokens of three shards, evenly spread."""
        parts = [tokenised.tokens for _, tokenised in self.sampled(shards)]
        rows = sum(shard.rows for shard in spread(shards, _SAMPLE_SHARDS))
        return Sample(tokens=joined(parts), rows=rows)

    def settings(self, sample: Callable[[], Sample], *, rows: int, measured: bool = True) -> Settings:
        """Choose target and settings for `rows` rows, tuned if `measured`.

        Raises DeviceError where nothing works, or not the named provider.
        """
        wish, text = self.config.engine, self.config.text
        target = choose_target(self.model, wish, lambda: sample().tokens, texts=rows)
        return settings_for(
            self.model, wish, target, sample, rows=rows if measured else 0, chunked=bool(text.chunk_tokens)
        )


def spread(shards: Sequence[Shard], count: int) -> list[Shard]:
    """Choose `count` shards, evenly spaced from first to last."""
    places = np.unique(np.linspace(0, len(shards) - 1, min(len(shards), count)).round().astype(int))
    return [shards[place] for place in places]
