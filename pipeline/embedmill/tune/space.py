"""The conductor between catalogue and tuner: what may be chosen for a target. Pure."""

from __future__ import annotations

import numpy as np
from msgspec import structs

from embedmill.base.config import EngineTable
from embedmill.base.records import IntArray, Model, Packing
from embedmill.batch.pack import pack
from embedmill.engine.catalogue.entry import Ladder, Precision, Provider
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.target import Target, packing_for
from embedmill.tune.search import Knobs, Mode, Space, Trial, ladder_buckets, powers_of_two

# Around the catalogue's budget: from a quarter of it to sixteen times it.
_LESS, _MORE = 4, 16
_MIB = 1 << 20
# The smallest batch holds the weights at most three times over (as read, as laid out for the device, and once more
# while that is done), a stream's own scratch memory, and the runtime: a CUDA context with its libraries is the largest
# of those that were seen.
_WEIGHTS_HELD, _STREAM_BYTES, _RUNTIME_BYTES, _DEVICE_RUNTIME_BYTES = 3, 64 * _MIB, 64 * _MIB, 1024 * _MIB
# Batches that wait padded while one computes.
_IN_FLIGHT = (2, 4)


def space_of(target: Target, model: Model, config: EngineTable) -> Space:
    """All that the user leaves open: precision, streams and threads or batches in flight, and the sizes."""
    modes = tuple(
        mode
        for precision in _precisions(target, model, config)
        for mode in _modes(target.provider, precision, model, config)
    )
    packing = packing_for(target.provider, model, config)
    if not packing.buckets:
        if config.budget_tokens:
            return Space(modes=modes, budgets_tokens=(config.budget_tokens,))
        budget = packing.budget_tokens
        return Space(modes=modes, budgets_tokens=powers_of_two(budget // _LESS, budget * _MORE))
    if config.budget_tokens:
        return Space(modes=modes, buckets=packing.buckets)
    assert isinstance(target.provider.shapes, Ladder)
    buckets = ladder_buckets(
        tuple(bucket.sequence for bucket in packing.buckets),
        longest=model.max_tokens,
        most_rows=target.provider.shapes.most_rows,
        most_tokens=max(packing.budget_tokens * _MORE, model.max_tokens),
    )
    return Space(modes=modes, buckets=buckets)


def is_open(space: Space) -> bool:
    """Whether there is anything to choose."""
    return len(space.modes) * max(len(space.budgets_tokens), len(space.buckets)) > 1


def default_trial(space: Space, packing: Packing, lengths: IntArray, padded_tokens: int) -> Trial:
    """The catalogue's own choice on some of the texts, spread evenly: about so many padded tokens, two batches for each
    stream at least. Where shapes are fixed it is the one that the median text goes to."""
    rows, mode = np.arange(len(lengths)), space.modes[0]
    bucket = None
    if packing.buckets:
        bucket = next(one for one in packing.buckets if one.sequence >= np.median(lengths))
        rows = rows[lengths <= bucket.sequence]
        packing = Packing(budget_tokens=packing.budget_tokens, buckets=(bucket,))
    batches = [structs.replace(batch, rows=rows[batch.rows]) for batch in pack(lengths[rows], packing)]
    mean = sum(batch.size * batch.sequence for batch in batches) / len(batches)
    count = min(len(batches), max(2 * mode.streams, round(padded_tokens / mean)))
    chosen = tuple(batches[int(place)] for place in (np.arange(count) + 0.5) / count * len(batches))
    return Trial(
        number=0,
        knobs=Knobs(mode=mode, budget_tokens=packing.budget_tokens, bucket=bucket),
        batches=chosen,
        repetition=1,
        useful_tokens=int(sum(lengths[batch.rows].sum() for batch in chosen)),
        padded_tokens=sum(batch.size * batch.sequence for batch in chosen),
        predicted_seconds=0.0,
        predicted_peak_bytes=None,
    )


def _precisions(target: Target, model: Model, config: EngineTable) -> list[Precision]:
    """The target's, and where the user leaves it open those others that the model has a graph for."""
    if config.precision != "auto":
        return [target.precision]
    others = [
        precision
        for precision, choice in target.provider.precisions.items()
        if precision != target.precision and choice.graph in model.graphs
    ]
    return [target.precision, *others]


def _modes(provider: Provider, precision: Precision, model: Model, config: EngineTable) -> list[Mode]:
    weights = _WEIGHTS_HELD * model.weights_bytes
    if provider.runs != "cores":
        threads = config.threads or usable_cores()
        floor = weights + _DEVICE_RUNTIME_BYTES + _STREAM_BYTES
        return [
            Mode(precision=precision, streams=1, threads=threads, in_flight=in_flight, floor_bytes=floor)
            for in_flight in _IN_FLIGHT
        ]
    cores = usable_cores()
    streams = [config.streams] if config.streams else list(dict.fromkeys([cores, *reversed(powers_of_two(1, cores))]))
    return [
        Mode(
            precision=precision,
            streams=count,
            threads=config.threads or max(1, cores // count),
            floor_bytes=weights + _RUNTIME_BYTES + count * _STREAM_BYTES,
        )
        for count in streams
    ]
