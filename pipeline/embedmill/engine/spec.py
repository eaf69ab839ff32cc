"""Engine specification: every decision that a runner needs."""

from __future__ import annotations

from typing import Self

from msgspec import Struct

from embedmill.base.config import EngineTable
from embedmill.base.records import Model, Packing
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.target import Target, packing_for


class EngineSpec(Struct, frozen=True, kw_only=True):
    """Decisions for one run: model, target, shapes and limits.

    streams          batches that compute at once; `threads` inside each of them
    in_flight        batches handed over at once where batches take turns: the next is padded while one computes
    memory_fraction  part of the free memory that batches may take
    memory_bytes     most device memory that a provider may take, where the provider knows such a limit
    timeout_s        seconds without a finished batch after which the device counts as hung
    """

    model: Model
    target: Target
    packing: Packing
    streams: int
    threads: int
    in_flight: int = 2
    memory_fraction: float = 0.85
    memory_bytes: int | None = None
    timeout_s: float = 300.0

    @property
    def lanes(self) -> int:
        """Return how many batches are handed over at once."""
        return self.streams if self.target.provider.runs == "cores" else self.in_flight

    @classmethod
    def decide(
        cls,
        model: Model,
        target: Target,
        wish: EngineTable,
        packing: Packing | None = None,
        *,
        cores: int | None = None,
    ) -> Self:
        """Complete a wish by catalogue and machine; `packing` overrides both."""
        cores = cores or usable_cores()
        # One single-threaded stream per core is the fastest on CPUs (docs/performance.md).
        streams = (wish.streams or cores) if target.provider.runs == "cores" else 1
        return cls(
            model=model,
            target=target,
            packing=packing or packing_for(target.provider, model, wish),
            streams=streams,
            threads=wish.threads or max(1, cores // streams),
            memory_fraction=wish.memory_fraction,
            memory_bytes=wish.memory_bytes,
            timeout_s=wish.timeout_s,
        )
