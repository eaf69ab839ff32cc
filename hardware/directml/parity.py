"""`python -m hardware.directml.parity`: the catalogue's DirectML sessions, run by the real DirectML.dll under Wine.

Graphs, session options, provider options and fixed dimensions are those that `plan_session` emits for a Windows
machine, in every shape of the ladder and every precision; only the batches are small, and the device is named
(`device_id 0`): Wine lacks the DXCore interface by which DirectML ranks adapters itself.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedmill.base.config import DEFAULT_MODEL, EngineTable, TextTable
from embedmill.base.records import Batch, Bucket, FloatArray, Model, Tokens
from embedmill.engine.catalogue.directml import DIRECTML
from embedmill.engine.catalogue.entry import Precision
from embedmill.engine.devices import Device
from embedmill.engine.sessions.canary import reference_vectors
from embedmill.engine.sessions.options import SessionPlan, plan_session
from embedmill.engine.sessions.session import pad
from embedmill.engine.target import packing_for
from embedmill.jobs.models import find_bundle
from hardware.directml.errors import SetupError
from hardware.directml.wine import DEFAULT_FOLDER, Wine, assigned, prepare
from hardware.parity import in_own_shape, least_cosine, spread

COSINES: dict[Precision, float] = {"fp32": 0.999999, "fp16": 0.9995}
_RECORD = {"session.record_ep_graph_assignment_info": "1"}
_ADAPTER = Device(
    index=0,
    kind="gpu",
    name="llvmpipe",
    luid="",
    discrete=False,
    emulated=False,
    metadata={"DxgiAdapterNumber": "0"},
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One session of the ladder and what it is to embed."""

    folder: Path
    precision: Precision
    bucket: Bucket
    batches: list[Batch]


def main() -> int:
    """Run every shape and precision; 1 where one does not hold, 2 where the environment cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m hardware.directml.parity", description=__doc__)
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the environment is kept")
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--budget", type=int, default=256, help="padded tokens per batch")
    options = parser.parse_args()
    try:
        wine = prepare(options.folder)
    except SetupError as error:
        print(f"directml: {error}", file=sys.stderr)
        return 2
    model = find_bundle(DEFAULT_MODEL).model(TextTable())
    packing = packing_for(DIRECTML, model, EngineTable(budget_tokens=options.budget))
    tokens = spread(model, packing.buckets, options.texts)
    batches = in_own_shape(tokens, packing.buckets)
    reference = reference_vectors(model, tokens)
    problems = 0
    for precision in DIRECTML.precisions:
        with tempfile.TemporaryDirectory(prefix="embedmill-directml-") as folder:
            jobs = [
                write_job(Path(folder), model, precision, bucket, tokens, batches)
                for bucket in packing.buckets
                if any(batch.sequence == bucket.sequence for batch in batches)
            ]
            problems += run_jobs(wine, jobs, reference, model.dim)
    return 1 if problems else 0


def write_job(
    folder: Path, model: Model, precision: Precision, bucket: Bucket, tokens: Tokens, batches: list[Batch]
) -> Job:
    """A folder with the graph, its weights, the plan and the padded batches of one shape."""
    plan = plan_session(model, DIRECTML, precision, threads=1, bucket=bucket, device=_ADAPTER)
    own = [batch for batch in batches if batch.sequence == bucket.sequence]
    job = folder / f"{bucket.rows}x{bucket.sequence}"
    job.mkdir()
    graph = Path(plan.graph)
    for path in (graph, *graph.parent.glob("*.bin")):
        shutil.copyfile(path, job / path.name)
    padded = [pad(tokens, batch, model.pad_id) for batch in own]
    (job / "ids.bin").write_bytes(b"".join(ids.astype("<i8").tobytes() for ids, _ in padded))
    (job / "mask.bin").write_bytes(b"".join(mask.astype("<i8").tobytes() for _, mask in padded))
    (job / "plan.txt").write_text("".join(f"{line}\n" for line in plan_lines(plan, bucket, model.dim, len(own))))
    return Job(folder=job, precision=precision, bucket=bucket, batches=own)


def plan_lines(plan: SessionPlan, bucket: Bucket, dim: int, inputs: int) -> list[str]:
    """A session plan as session.exe reads it."""
    return [
        f"graph {Path(plan.graph).name}",
        f"batch {bucket.rows}",
        f"sequence {bucket.sequence}",
        f"dim {dim}",
        f"memory_pattern {int(plan.memory_pattern)}",
        "execution sequential",
        f"optimisation {'all' if plan.optimise else 'basic'}",
        f"threads {plan.threads}",
        *(f"config {key} {value}" for key, value in {**plan.session, **_RECORD}.items()),
        *(f"free_dimension {name} {size}" for name, size in plan.free.items()),
        "provider DML",
        *(f"option {key} {value}" for key, value in plan.options.items()),
        f"inputs {inputs}",
    ]


def run_jobs(wine: Wine, jobs: list[Job], reference: FloatArray, dim: int) -> int:
    """Run the sessions of one precision in one Windows process; how many do not hold."""
    began = time.monotonic()
    results = wine.run_all([job.folder for job in jobs])
    problems = 0
    for job, facts in zip(jobs, results, strict=True):
        shape = f"{job.precision} {job.bucket.rows:>2} x {job.bucket.sequence:<3}"
        if "error" in facts:
            print(f"directml {shape} FAILED: {facts['error']}")
            problems += 1
            continue
        cosine = least_cosine(*_vectors(job, reference, dim))
        nodes = assigned(facts)
        placed = nodes.get(DIRECTML.ort.name, 0)
        holds = cosine >= COSINES[job.precision] and placed == sum(nodes.values()) > 0
        problems += not holds
        print(
            f"directml {shape} {'holds' if holds else 'FAILED'}: cosine >= {cosine:.9f},"
            f" nodes on DirectML {placed}/{sum(nodes.values())}, {sum(len(batch.rows) for batch in job.batches)} texts"
        )
    print(f"directml {jobs[0].precision}: {time.monotonic() - began:.0f} s", flush=True)
    return problems


def _vectors(job: Job, reference: FloatArray, dim: int) -> tuple[FloatArray, FloatArray]:
    """What DirectML computed, and what the CPU did: both float32 [texts, dim]."""
    found = np.fromfile(job.folder / "vectors.bin", "<f4").reshape(len(job.batches), job.bucket.rows, dim)
    texts = [vectors[: len(batch.rows)] for vectors, batch in zip(found, job.batches, strict=True)]
    return np.concatenate(texts), np.concatenate([reference[batch.rows] for batch in job.batches])


if __name__ == "__main__":
    sys.exit(main())
