"""`python -m hardware.parity PROVIDER`: real texts on a provider against the CPU, in every shape of its ladder.

What it runs is what a run runs: the catalogue's options, strict placement, the canaries, the engine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import dataclass

import numpy as np

from embedmill.base.config import DEFAULT_MODEL, EngineTable, TextTable
from embedmill.base.records import Batch, Bucket, FloatArray, Model, Tokens, Work
from embedmill.base.results import EngineFacts
from embedmill.batch.tokenise import Tokeniser
from embedmill.batch.tokens import take
from embedmill.engine.catalogue import find_provider
from embedmill.engine.catalogue.entry import Precision
from embedmill.engine.engine import Engine
from embedmill.engine.machine.machine import this_machine
from embedmill.engine.runners.base import RunnerOptions
from embedmill.engine.runners.start import list_devices, runner_for
from embedmill.engine.sessions.canary import cosines_of, reference_vectors
from embedmill.engine.spec import EngineSpec
from embedmill.engine.target import packing_for, target_for
from embedmill.jobs.doctor import docstrings
from embedmill.jobs.models import find_bundle


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a provider must show in a precision: the least cosine to the CPU, and the padded tokens of a batch."""

    precision: Precision
    cosine: float
    budget_tokens: int


# Small batches: an emulation takes seconds for what a device does in milliseconds.
DEMANDS = {
    "openvino": (Demand(precision="fp32", cosine=0.999999, budget_tokens=1024),),
    "webgpu": (
        Demand(precision="fp32", cosine=0.999999, budget_tokens=256),
        Demand(precision="fp16", cosine=0.9995, budget_tokens=256),
    ),
    "qnn": (Demand(precision="fp16", cosine=0.9995, budget_tokens=256),),
}
# Of the texts, so many go to the shorter half of the shapes: they cost least.
_SHARES = (0.6, 0.25, 0.1, 0.05)
# What a kept context is tried with: proving a long shape again takes minutes on an emulation.
_SHORT_TOKENS = 64
_FEW = 16
_SAME = 0.9999
# An emulation may compile the longest shape for many minutes.
_SHAPE_S = 3600.0


def main() -> int:
    """Prove one provider; 1 if it does not hold."""
    parser = argparse.ArgumentParser(prog="hardware.parity", description=__doc__)
    parser.add_argument("provider", choices=DEMANDS)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--longest", type=int, help="leave out shapes of more tokens")
    options = parser.parse_args()
    if not has_device(options.provider):
        print(f"{options.provider}: no device on this machine ({this_machine().cpu}); nothing was proved")
        return 0
    model = find_bundle(DEFAULT_MODEL).model(TextTable(max_tokens=options.longest))
    problems = []
    for demand in DEMANDS[options.provider]:
        problems += prove(options.provider, demand, model, options.texts)
    for problem in problems:
        print(f"{options.provider}: {problem}")
    return 1 if problems else 0


def has_device(name: str) -> bool:
    """Whether the provider lists a device; OpenVINO's plugin lists none where the processor is not Intel's."""
    return bool(list_devices(find_provider(name))) or "Intel" in this_machine().cpu or name != "openvino"


def prove(name: str, demand: Demand, model: Model, texts: int) -> list[str]:
    """Embed real texts on the provider and on the CPU; what does not hold, in words."""
    provider = find_provider(name)
    config = EngineTable(
        provider=name, precision=demand.precision, budget_tokens=demand.budget_tokens, timeout_s=_SHAPE_S
    )
    buckets = packing_for(provider, model, config).buckets
    tokens = spread(model, buckets, texts)
    reference = reference_vectors(model, tokens)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="embedmill-contexts-") as folder:
        vectors, facts = embed(name, model, config, tokens, folder)
        problems = [*_check(vectors, reference, facts, demand, buckets)]
        show(facts, len(vectors), least_cosine(vectors, reference), time.monotonic() - began)
        if provider.ort.compiled:
            problems += _reload(name, model, config, tokens, folder, vectors)
    return problems


def embed(
    name: str, model: Model, config: EngineTable, tokens: Tokens, contexts: str
) -> tuple[FloatArray, EngineFacts]:
    """Vectors float32 [texts, dim] by the engine, as a run's in a process of its own, and what it says of its sessions.

    Compiled contexts are kept in the folder `contexts`.
    """
    spec = EngineSpec.decide(model, target_for(find_provider(name), config, this_machine(), list_devices), config)
    work = Work(tokens=tokens, batches=in_own_shape(tokens, spec.packing.buckets))
    # The process of the sessions finds its folder of contexts by this.
    os.environ["EMBEDMILL_HOME"] = contexts
    with Engine(runner_for(spec, RunnerOptions(watched=False), notify=print)) as engine:
        [(_, vectors)] = engine.embed([(0, work)])
        return vectors, engine.facts()


def spread(model: Model, buckets: tuple[Bucket, ...], count: int) -> Tokens:
    """Docstrings of the standard library, some for every shape of a ladder, mostly short ones."""
    tokeniser = Tokeniser.of(model)
    tokens = tokeniser.encode(list(dict.fromkeys(docstrings())))
    shapes = np.searchsorted([bucket.sequence for bucket in buckets], tokens.lengths)
    chosen: list[int] = []
    for number in range(len(buckets)):
        share = _SHARES[number] if number < len(_SHARES) else _SHARES[-1]
        rows = np.flatnonzero(shapes == number)
        chosen += [int(row) for row in rows[: max(1, round(share * count))]]
    return take(tokens, chosen)


def in_own_shape(tokens: Tokens, buckets: tuple[Bucket, ...]) -> list[Batch]:
    """Batches where every text runs in the smallest shape that holds it; a run would let short ones ride along."""
    shapes = np.searchsorted([bucket.sequence for bucket in buckets], tokens.lengths)
    return [
        Batch(rows=rows[start : start + bucket.rows], size=bucket.rows, sequence=bucket.sequence)
        for number, bucket in enumerate(buckets)
        for rows in [np.flatnonzero(shapes == number)]
        for start in range(0, len(rows), bucket.rows)
    ]


def least_cosine(vectors: FloatArray, reference: FloatArray) -> float:
    """Over rows of two [texts, dim]; NaN where a vector is not finite."""
    return float(cosines_of(vectors, reference).min())


def _check(
    vectors: FloatArray, reference: FloatArray, facts: EngineFacts, demand: Demand, buckets: tuple[Bucket, ...]
) -> list[str]:
    problems = []
    cosine = least_cosine(vectors, reference)
    if not cosine >= demand.cosine:
        problems.append(f"{demand.precision}: a cosine of {cosine:.7f}, at least {demand.cosine} is demanded")
    used = {(session.rows, session.sequence) for session in facts.sessions}
    missing = [bucket for bucket in buckets if (bucket.rows, bucket.sequence) not in used]
    if missing:
        problems.append(f"{demand.precision}: no text went to {missing}")
    problems += [
        f"{demand.precision}, {session.rows} x {session.sequence}: {session.nodes_placed} of {session.nodes} nodes"
        for session in facts.sessions
        if session.nodes == 0 or session.nodes_placed != session.nodes
    ]
    return problems


def _reload(
    name: str, model: Model, config: EngineTable, tokens: Tokens, contexts: str, vectors: FloatArray
) -> list[str]:
    """Short texts again from the contexts that were kept: one node each, and the same vectors."""
    few = take(tokens, [int(row) for row in np.flatnonzero(tokens.lengths <= _SHORT_TOKENS)[:_FEW]])
    with_kept, facts = embed(name, model, config, few, contexts)
    with tempfile.TemporaryDirectory(prefix="embedmill-contexts-") as folder:
        again, _ = embed(name, model, config, few, folder)
    problems = [f"a kept context has {s.nodes} nodes, not one" for s in facts.sessions if s.nodes != 1]
    if not np.array_equal(with_kept, again):
        problems.append("vectors from a kept context differ from freshly compiled ones")
    if least_cosine(with_kept, vectors[tokens.lengths <= _SHORT_TOKENS][:_FEW]) < _SAME:
        problems.append("vectors from a kept context differ from those of the first run")
    seconds = sum(session.seconds for session in facts.sessions)
    print(f"  contexts: {len(facts.sessions)} loaded and proved again in {seconds:.1f} s, vectors equal")
    return problems


def show(facts: EngineFacts, texts: int, cosine: float, seconds: float) -> None:
    """Print what ran."""
    where = f"{facts.provider} {facts.precision} on {facts.device}"
    print(f"{where}: {texts} texts in {seconds:.0f} s, cosine >= {cosine:.7f}")
    for session in facts.sessions:
        print(
            f"  {session.rows:>3} x {session.sequence:<3} nodes {session.nodes_placed}/{session.nodes},"
            f" canary cosine {session.canary_cosine:.7f}, opened and proved in {session.seconds:.1f} s"
        )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
