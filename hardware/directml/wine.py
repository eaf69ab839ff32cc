"""The environment as two calls: `prepare` makes it, `Wine.run` runs a session plan in it."""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from hardware.directml import build, fetch, sandbox
from hardware.directml.errors import SetupError

DEFAULT_FOLDER = Path(os.environ.get("EMBEDMILL_DIRECTML", "build/directml"))
# What a job receives; what an earlier run left there is removed first.
_RESULTS = ("facts.txt", "log.txt", "vectors.bin")
_MOST_JOBS = 32
# Lines of what Wine said that go into the error of a job that it did not finish.
_LAST_WORDS = 3


class Wine(Struct, frozen=True, kw_only=True):
    """An environment that is ready. `folder` is its place on this machine."""

    folder: Path

    def run(self, job: Path, *, timeout_s: float = 3600) -> dict[str, str]:
        """Run the plan in a job folder; the facts that it wrote. See `run_all`."""
        return self.run_all([job], timeout_s=timeout_s)[0]

    def run_all(self, jobs: Sequence[Path], *, timeout_s: float = 3600) -> list[dict[str, str]]:
        """Run plans in one Windows process, as embedmill does: all sessions open at once, one running at a time.

        Each job folder receives facts.txt, log.txt and, if it succeeded, vectors.bin. The facts of a job that
        failed have "error". Raises SetupError where a folder is no job, or the time is over.
        """
        if not 0 < len(jobs) <= _MOST_JOBS:
            raise SetupError(f"{len(jobs)} jobs; between 1 and {_MOST_JOBS} run in one process")
        for job in jobs:
            _check(job)
            for name in _RESULTS:
                (job / name).unlink(missing_ok=True)
        with alone(self.folder):
            binds = [sandbox.Bind(job.resolve(), f"/jobs/{number}", "rw") for number, job in enumerate(jobs)]
            done = sandbox.enter(self.folder / "root", "run.sh", str(len(jobs)), binds=binds, timeout_s=timeout_s)
        said = " / ".join(done.stderr.strip().splitlines()[-_LAST_WORDS:])
        return [_facts(job, f"session.exe ended with code {done.returncode}: {said}") for job in jobs]


def prepare(folder: Path = DEFAULT_FOLDER, *, mirror: str | None = None, requirement: str = fetch.RUNTIME) -> Wine:
    """The environment in `folder`, made or completed where it is not; nothing is done twice.

    `mirror` is a Debian mirror, by default the one that apt uses; `requirement` the wheel whose DLLs are run.
    Needs root, x86-64 Linux, debootstrap, and 3 GB. Raises SetupError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        build.perform(folder / "root", build.steps(mirror or fetch.mirror(), requirement))
    return Wine(folder=folder)


def assigned(facts: dict[str, str]) -> dict[str, int]:
    """Nodes by provider, as ONNX Runtime assigned them, before DirectML fused its own into one.

    Empty unless the plan set `session.record_ep_graph_assignment_info` to 1 and the session opened.
    """
    nodes: Counter[str] = Counter()
    for key, value in facts.items():
        kind, _, rest = key.partition(".")
        if kind == "assigned":
            nodes[rest.partition(".")[0]] += int(value)
    return dict(nodes)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time: a Wine prefix has one owner."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check(job: Path) -> None:
    if not (job / "plan.txt").is_file():
        raise SetupError(f"{job} is not a job: it has no plan.txt")
    links = sorted(path.name for path in job.iterdir() if path.is_symlink())
    if links:
        raise SetupError(f"{job}: {', '.join(links)} would point nowhere inside; copy the files")


def _facts(job: Path, otherwise: str) -> dict[str, str]:
    """What session.exe wrote; a job that it did not finish gets `otherwise` as its error."""
    file = job / "facts.txt"
    lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
    facts = {key: value for key, _, value in (line.partition(" ") for line in lines)}
    if facts.get("done") != "1":
        facts.setdefault("error", otherwise)
    return facts
