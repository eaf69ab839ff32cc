"""Paired benchmark: the whole pipeline against sentence-transformers, run by turns on the same documents.

Usage: python bench/peers.py --peer-python PATH --model FOLDER --documents 1000 --pairs 5 [--out FILE]

Both sides are whole processes: A reads Parquet and writes the output folder, B reads JSON and writes one
.npy file. Peak memory is that of the largest process a side starts, as the kernel reports it. Other work on
the machine slows the two sides unevenly, so each run also shows how many CPU seconds others used meanwhile.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import json
import math
import os
import platform
import random
import re
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float32]

SEED = 20240607
ROOT = Path(__file__).resolve().parent.parent
PEER_SCRIPT = Path(__file__).resolve().parent / "peer_st.py"
SHORTEST = 20
CUT = (200, 6000)
QUIET = 0.1
DOC_NAME = re.compile(r"^(README|NEWS|FAQ|TODO)|\.(txt|md|rst)(\.gz)?$")
SKIPPED = {
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
    "turtledemo",
    "__pycache__",
}
OURS, PEER = "embedmill", "sentence-transformers"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Where things are: the peer's Python and model, the corpus in both formats, scratch space."""

    peer_python: Path
    model: Path
    corpus: Path
    texts: Path
    scratch: Path
    arguments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One process: wall seconds, peak memory, CPU seconds of its own and of everything else meanwhile."""

    side: str
    pair: int
    seconds: float
    peak_mib: float
    cpu_seconds: float
    other_cpu_seconds: float
    printed: dict[str, Any] = field(default_factory=dict)

    @property
    def quiet(self) -> bool:
        """Whether others used less than a tenth of the machine."""
        return self.other_cpu_seconds < QUIET * self.seconds * (os.cpu_count() or 1)


# -- the corpus ------------------------------------------------------------------------------------------


def library_files() -> list[Path]:
    """Source files of the standard library, in order, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = (path for path in root.rglob("*.py") if not SKIPPED & set(path.relative_to(root).parts))
    return sorted(found)


def docstrings(path: Path) -> list[str]:
    """All docstrings of one source file."""
    nodes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    return [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, nodes)]


def plain(path: Path) -> str:
    """The text of a documentation file or manual page; empty where it is not UTF-8."""
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (UnicodeDecodeError, OSError, EOFError):
        return ""
    if "man" in path.parts:
        text = re.sub(r"(?m)^['.]\\\".*\n|^\.[A-Za-z]+ ?|\\f[A-Z]|\\&", "", text).replace("\\-", "-")
    return text.replace("\x00", "").strip()


def system_files() -> list[Path]:
    """Documentation files and English manual pages of the system, in order; empty where it has none."""
    docs, manual = Path("/usr/share/doc"), Path("/usr/share/man")
    pages = [path for section in "1578" for path in (manual / f"man{section}").glob("*")]
    found = [path for path in docs.rglob("*") if DOC_NAME.search(path.name)] + pages
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def long_texts(chance: random.Random, documented: list[list[str]]) -> Iterator[str]:
    """Long texts cut at mixed lengths: files of the system, then all docstrings of one source file."""
    files = system_files()
    chance.shuffle(files)
    sources = [plain(path) for path in files[:5000]] + ["\n\n".join(texts) for texts in documented]
    for text in sources:
        size = int(math.exp(chance.uniform(math.log(CUT[0]), math.log(CUT[1]))))
        yield text[:size].rsplit(maxsplit=1)[0] if len(text) > size else text


def make_documents(count: int) -> list[str]:
    """`count` different texts, half of them docstrings, always the same ones on one machine."""
    chance = random.Random(SEED)
    documented = [docstrings(path) for path in library_files()]
    short = list(dict.fromkeys(text for texts in documented for text in texts if len(text) >= SHORTEST))
    chosen = dict.fromkeys(chance.sample(short, min(len(short), count - count // 2)))
    for text in long_texts(chance, documented):
        if len(chosen) == count:
            break
        if len(text) >= CUT[0] // 2:
            chosen.setdefault(text)
    if len(chosen) < count:
        raise SystemExit(f"found only {len(chosen)} documents here: ask for no more with --documents")
    documents = list(chosen)
    chance.shuffle(documents)
    return documents


def write_corpus(documents: list[str], corpus: Path, texts: Path) -> None:
    """Writes the same documents as Parquet (id, text) and as a JSON list."""
    table = pa.table({"id": [str(number) for number in range(len(documents))], "text": documents})
    pq.write_table(table, corpus)
    texts.write_text(json.dumps(documents), encoding="utf-8")


def describe(setup: Setup, documents: list[str]) -> dict[str, Any]:
    """Size, digest and token counts of the corpus, and the peer's versions."""
    command = [str(setup.peer_python), str(PEER_SCRIPT), "--model", str(setup.model)]
    command += ["--texts", str(setup.texts), "--survey"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    tokens: dict[str, Any] = json.loads(done.stdout)
    sizes = [len(text) for text in documents]
    return {
        "documents": len(documents),
        "sha256": hashlib.sha256("\x00".join(documents).encode()).hexdigest(),
        "characters": {"min": min(sizes), "median": statistics.median(sizes), "max": max(sizes)},
        "peer_versions": tokens.pop("versions"),
        "tokens": tokens,
    }


# -- the runs --------------------------------------------------------------------------------------------


def busy_seconds() -> float:
    """CPU seconds the whole machine has worked since it started; NaN where it cannot be told."""
    try:
        ticks = [int(part) for part in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    except OSError:
        return math.nan
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # without idle and waiting


def last_json(text: str) -> dict[str, Any]:
    """The JSON object a process printed: all of its output, or the last line; empty where there is none."""
    for candidate in (text, *reversed(text.splitlines())):
        try:
            found = json.loads(candidate)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return {}


def measure(side: str, pair: int, command: list[str], scratch: Path) -> Run:
    """Runs the command and waits for it; its own messages show only where it fails."""
    with (scratch / "stdout").open("w+b") as out, (scratch / "stderr").open("w+b") as err:
        busy, start = busy_seconds(), time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds, busy = time.perf_counter() - start, busy_seconds() - busy
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise SystemExit(f"{side} ended with {process.returncode}:\n{err.read().decode(errors='replace')}")
        printed = last_json(out.read().decode(errors="replace"))
    cpu = usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)
    return Run(
        side=side,
        pair=pair,
        seconds=seconds,
        peak_mib=peak,
        cpu_seconds=cpu,
        other_cpu_seconds=max(0.0, busy - cpu),
        printed=printed,
    )


def run_ours(setup: Setup, pair: int) -> Run:
    """A: the pipeline, in this environment, into a fresh output folder."""
    command = [sys.executable, "-m", "embedmill", "run", "--input", str(setup.corpus)]
    command += ["--output", str(setup.scratch / f"out-{pair}"), "--provider", "cpu", "--json"]
    return measure(OURS, pair, [*command, *setup.arguments], setup.scratch)


def run_peer(setup: Setup, pair: int) -> Run:
    """B: sentence-transformers, in its own environment, with its default threads."""
    command = [str(setup.peer_python), str(PEER_SCRIPT), "--model", str(setup.model)]
    command += ["--texts", str(setup.texts), "--vectors", str(setup.scratch / "peer.npy")]
    return measure(PEER, pair, command, setup.scratch)


def run_all(setup: Setup, pairs: int, *, peer_only: bool) -> list[Run]:
    """One warm-up of each side (pair 0), then A B A B ...; returns all runs."""
    sides = [run_peer] if peer_only else [run_ours, run_peer]
    runs = []
    for pair in range(pairs + 1):
        for side in sides:
            run = side(setup, pair)
            print(row(run), flush=True)
            runs.append(run)
    return runs


# -- the report ------------------------------------------------------------------------------------------


def row(run: Run) -> str:
    """One line of the table."""
    encode = run.printed.get("encode_seconds")
    return (
        f"{run.pair or 'warm-up':>7}  {run.side:<22} {run.seconds:8.2f} s  "
        f"{f'{encode:8.2f} s' if encode and run.side == PEER else ' ' * 10}  {run.peak_mib:8.0f} MiB  "
        f"others {run.other_cpu_seconds:6.1f} CPU s{'' if run.quiet else '  (not quiet)'}"
    )


def medians(runs: list[Run], side: str, documents: int) -> dict[str, float]:
    """Medians over the timed runs of one side."""
    chosen = [run for run in runs if run.side == side and run.pair]
    seconds = statistics.median(run.seconds for run in chosen)
    found = {
        "seconds": seconds,
        "documents_per_second": documents / seconds,
        "peak_mib": statistics.median(run.peak_mib for run in chosen),
        "cpu_seconds": statistics.median(run.cpu_seconds for run in chosen),
    }
    if side == PEER:
        encode = statistics.median(float(run.printed["encode_seconds"]) for run in chosen)
        found |= {"encode_seconds": encode, "encode_documents_per_second": documents / encode}
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Median and range of one ratio over the pairs."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(runs: list[Run]) -> dict[str, dict[str, float]]:
    """Documents per second of A over B, pair by pair; more than 1 means that the pipeline is faster."""
    ours = {run.pair: run for run in runs if run.side == OURS and run.pair}
    peers = {run.pair: run for run in runs if run.side == PEER and run.pair}
    return {
        "whole_process": spread([peers[pair].seconds / ours[pair].seconds for pair in ours]),
        "against_encode_only": spread(
            [float(peers[pair].printed["encode_seconds"]) / ours[pair].seconds for pair in ours]
        ),
        "peak_memory": spread([ours[pair].peak_mib / peers[pair].peak_mib for pair in ours]),
    }


def our_vectors(folder: Path, documents: int) -> FloatArray:
    """The pipeline's vectors in corpus order: float32 [documents, width]."""
    tables = [pq.read_table(path, columns=["id", "embedding"]) for path in sorted(folder.glob("*.parquet"))]
    table = pa.concat_tables(tables)
    column = table.column("embedding").combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    order = np.array([int(name) for name in table.column("id").to_pylist()])
    if sorted(order) != list(range(documents)):
        raise SystemExit(f"the pipeline wrote {len(order)} vectors for {documents} documents, or other ids")
    vectors: FloatArray = np.empty((documents, len(flat) // documents), dtype=np.float32)
    vectors[order] = flat.reshape(documents, -1)
    return vectors


def least_cosine(left: FloatArray, right: FloatArray) -> float:
    """The smallest cosine between vectors of the same row; both are [n, width]."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float((np.einsum("nw,nw->n", left, right, dtype=np.float64) / lengths).min())


def report(setup: Setup, corpus: dict[str, Any], runs: list[Run]) -> dict[str, Any]:
    """Everything that is written to the results file."""
    documents = int(corpus["documents"])
    sides = [side for side in (OURS, PEER) if any(run.side == side for run in runs)]
    found: dict[str, Any] = {
        "machine": {"system": platform.platform(), "processors": os.cpu_count()},
        "corpus": corpus,
        "medians": {side: medians(runs, side, documents) for side in sides},
        "quiet": all(run.quiet for run in runs if run.pair),
        "runs": [asdict(run) for run in runs],
    }
    if OURS in sides:
        last = max(run.pair for run in runs)
        vectors = our_vectors(setup.scratch / f"out-{last}", documents)
        found["ratios"] = ratios(runs)
        found["least_cosine"] = least_cosine(vectors, np.load(setup.scratch / "peer.npy"))
    return found


def show(found: dict[str, Any]) -> None:
    """Prints the medians and ratios."""
    for side, values in found["medians"].items():
        print(f"median   {side}: " + ", ".join(f"{name} {value:.2f}" for name, value in values.items()))
    for name, values in found.get("ratios", {}).items():
        print(f"ratio    {name}: {values['median']:.3f} ({values['min']:.3f} to {values['max']:.3f})")
    if "least_cosine" in found:
        print(f"cosine   at least {found['least_cosine']:.7f}")
    if not found["quiet"]:
        print("warning  other work used the machine: these times are not a fair comparison")


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer-python", type=Path, required=True, help="the Python that has the peer")
    parser.add_argument("--model", type=Path, required=True, help="the peer's model folder")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--out", type=Path, help="where to write the results as JSON")
    parser.add_argument("--peer-only", action="store_true", help="leave the pipeline out")
    parser.add_argument("--arguments", default="", help="more arguments for `embedmill run`, in one string")
    return parser.parse_args()


def main() -> None:
    """Makes the corpus, runs both sides by turns, prints and writes the results."""
    wanted = options()
    with tempfile.TemporaryDirectory(prefix="embedmill-bench-") as name:
        scratch = Path(name)
        setup = Setup(
            peer_python=wanted.peer_python.absolute(),
            model=wanted.model.resolve(),
            corpus=scratch / "corpus.parquet",
            texts=scratch / "corpus.json",
            scratch=scratch,
            arguments=tuple(shlex.split(wanted.arguments)),
        )
        documents = make_documents(wanted.documents)
        write_corpus(documents, setup.corpus, setup.texts)
        corpus = describe(setup, documents)
        found = report(setup, corpus, run_all(setup, wanted.pairs, peer_only=wanted.peer_only))
    show(found)
    if wanted.out:
        wanted.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
