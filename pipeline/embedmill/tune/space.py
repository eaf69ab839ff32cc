"""Space of a tuning: everything left open by the user."""

from __future__ import annotations

from embedmill.base.config import MIB, EngineTable
from embedmill.base.records import Batch, IntArray, Model
from embedmill.base.results import Tuning
from embedmill.batch.pack import pack
from embedmill.engine.catalogue.entry import Ladder, Precision, Provider
from embedmill.engine.machine.cores import usable_cores
from embedmill.engine.target import Target, packing_for
from embedmill.tune.search import Knobs, Mode, Space, Trial, ladder_buckets, powers_of_two
from embedmill.tune.search.sweep import spread
from embedmill.tune.search.trials import padded

# Budgets from a quarter of the catalogue's to sixteen times that.
_LESS, _MORE = 4, 16
# The smallest batch holds the weights at most three times over (as read, as laid out for the device, and once more
# while that is done), a stream's own scratch memory, and the runtime: a CUDA context with its libraries is the largest
# of those that were measured.
_WEIGHTS_HELD, _STREAM_BYTES, _RUNTIME_BYTES, _DEVICE_RUNTIME_BYTES = 3, 64 * MIB, 64 * MIB, 1024 * MIB
# Batches that wait padded while one computes; the first is what runs untuned.
_IN_FLIGHT = (2, 4)
# Padded tokens that the first measurement of a device runs.
_FIRST_TOKENS = 16_384


def space_of(target: Target, model: Model, config: EngineTable) -> Space:
    """Return the modes and sizes that may be chosen."""
    modes = tuple(
        mode
        for precision in _precisions(target, model, config)
        for mode in _modes(target.provider, precision, model, config)
    )
    default, shapes = packing_for(target.provider, model, config), target.provider.shapes
    budget = default.budget_tokens
    if not isinstance(shapes, Ladder):
        budgets = (budget,) if config.budget_tokens else powers_of_two(budget // _LESS, budget * _MORE)
        return Space(modes=modes, default=default, budgets_tokens=budgets)
    buckets = ladder_buckets(
        tuple(bucket.sequence for bucket in default.buckets),
        longest=model.max_tokens,
        most_rows=shapes.most_rows,
        most_tokens=max(budget * _MORE, model.max_tokens),
    )
    return Space(modes=modes, default=default, buckets=default.buckets if config.budget_tokens else buckets)


def offers(space: Space, tuning: Tuning) -> bool:
    """Return whether a tuning can have found such settings."""
    mode = (tuning.precision, tuning.streams, tuning.threads, tuning.in_flight)
    budgets = {space.default.budget_tokens, *space.budgets_tokens}
    return (
        mode in [(one.precision, one.streams, one.threads, one.in_flight) for one in space.modes]
        and bool(tuning.packing.buckets) == bool(space.default.buckets)
        and set(tuning.packing.buckets) <= {*space.default.buckets, *space.buckets}
        and (bool(space.buckets) or tuning.packing.budget_tokens in budgets)
    )


def is_open(space: Space) -> bool:
    """Return whether there is anything to choose."""
    return len(space.modes) * max(len(space.budgets_tokens), len(space.buckets)) > 1


def default_trial(space: Space, lengths: IntArray) -> Trial:
    """Return a trial of the catalogue's default.

    Its batches are spread evenly, two for each stream at least. Of a ladder it runs the bucket with the most tokens.
    """
    mode, groups = space.modes[0], dict[int, list[Batch]]()
    for batch in pack(lengths, space.default):
        groups.setdefault(batch.sequence if space.default.buckets else 0, []).append(batch)
    batches = max(groups.values(), key=lambda group: sum(int(lengths[batch.rows].sum()) for batch in group))
    count = max(2 * mode.streams, round(_FIRST_TOKENS * len(batches) / sum(map(padded, batches))))
    chosen = tuple(spread(batches, min(count, len(batches))))
    largest = next((one for one in space.default.buckets if one.sequence == batches[0].sequence), None)
    return Trial(
        number=0,
        knobs=Knobs(mode=mode, budget_tokens=space.default.budget_tokens, bucket=largest),
        batches=chosen,
        repetition=1,
        useful_tokens=int(sum(lengths[batch.rows].sum() for batch in chosen)),
        padded_tokens=sum(map(padded, chosen)),
        predicted_peak_bytes=None,
    )


def _precisions(target: Target, model: Model, config: EngineTable) -> list[Precision]:
    """Return the target's precision, and others that the user allows."""
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
