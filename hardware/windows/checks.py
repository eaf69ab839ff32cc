"""python -m hardware.windows.checks: what a Windows user does with a checkout, and what happens to one.

Runs on any Windows, in the checkout, with a Python that is not the environment's. Each check prints one line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

PYTHON = str(Path(".venv") / "Scripts" / "python.exe")
WORK = Path("build") / "windows"
ROWS, SHARD_ROWS, KILLS = 400, 20, 20
# A run of this corpus begins to embed after so long at the earliest, and takes so long.
KILL_BETWEEN_S = (0.5, 12.0)
_NEW_CONSOLE = getattr(subprocess, "CREATE_NEW_CONSOLE", 0)
# Exit codes: 128 and the number of the signal.
CTRL_C, CTRL_BREAK = 130, 149
PASSED, FAILED = "ok    ", "FAILED"
# Sent from a console of its own: Ctrl-C reaches every process of a console, Ctrl-Break those of a group.
INTERRUPT = """
import ctypes, signal, subprocess, sys, time
event, ready, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
signal.signal(signal.SIGINT, lambda *_: None)
child = subprocess.Popen(command, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP if event else 0)
from pathlib import Path
for _ in range(600):
    if list(Path(ready).glob("part-*.parquet")) or child.poll() is not None:
        break
    time.sleep(0.1)
ctypes.windll.kernel32.GenerateConsoleCtrlEvent(event, child.pid if event else 0)
sys.exit(child.wait(120))
"""
Check = Callable[[], str]


def main() -> int:
    """Exit code 0 where all holds, 1 where something does not."""
    parser = argparse.ArgumentParser(prog="python -m hardware.windows.checks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CHECKS)}; all where none is named")
    names = parser.parse_args().names or list(CHECKS)
    failed = 0
    for name in names:
        began = time.monotonic()
        try:
            word, said = PASSED, CHECKS[name]()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            word, said, failed = FAILED, f"{type(error).__name__}: {error}", failed + 1
        print(f"{word} {name}: {said} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(names) - failed} of {len(names)} checks hold", flush=True)
    return 1 if failed else 0


def readme() -> str:
    """README's lines for PowerShell, as they stand but for the launcher `py`."""
    text = Path("README.md").read_text("utf-8")
    lines = powershell_lines(text)
    for line in lines:
        words = shlex.split(line, posix=False)
        words[:2] = [sys.executable] if words[:2] == ["py", "-3"] else words[:2]
        # As a shell does, which finds python.exe as python.
        run(shutil.which(words[0]) or words[0], *words[1:], timeout_s=3600)
    return f"{len(lines)} commands; {run(PYTHON, '-m', 'embedmill', '--version').stdout.strip()}"


def powershell_lines(text: str) -> list[str]:
    """Commands of the first block for PowerShell in a page."""
    block = re.search(r"```powershell\n(.*?)```", text, re.DOTALL)
    assert block is not None, "there are no lines for PowerShell"
    return [line.strip() for part in block[1].splitlines() for line in part.split(";")]


def sample() -> str:
    """What README's run made: verified, reported, and complete for a second run."""
    verified = embedmill("verify", "out/stdlib-docs")
    embedmill("report", "out/stdlib-docs")
    again = embedmill("run", "configs/default.toml")
    assert again.stdout.startswith("nothing to do"), again.stdout
    return verified.stdout.strip().splitlines()[-1]


def doctor() -> str:
    """The CPU works; what is said of the rest."""
    found = json.loads(embedmill("doctor", "--json", timeout_s=1800).stdout)
    states = {finding["provider"]: finding["state"] for finding in found["findings"]}
    assert states["cpu"] == "works", states
    return ", ".join(f"{name} {state}" for name, state in states.items())


def kills() -> str:
    """TerminateProcess at random instants; what is left resumes to what an undisturbed run gives."""
    chance, ended, attempts = random.Random(0), 0, 0
    expected, output = undisturbed(), fresh("killed")
    while ended < KILLS:
        attempts += 1
        process = subprocess.Popen(words(output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            code = process.wait(chance.uniform(*KILL_BETWEEN_S))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended += 1
            settle(output)
        else:
            assert code == 0, f"a run ended with {code}"
            compare(output, expected)
            shutil.rmtree(output)
    assert run(*words(output), timeout_s=300).returncode == 0
    compare(output, expected)
    return f"{ended} kills in {attempts} runs, each output equal"


def locked() -> str:
    """A second run is told that the first one writes."""
    # Long enough for a second run to begin.
    output = fresh("locked")
    line = words(output, source=str(corpus(rows=20 * ROWS)))
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        until(lambda: any(output.glob("part-*.parquet")) or first.poll() is not None)
        second = run(*line, expected=6)
        first.wait(300)
    assert "another run is writing" in second.stderr, second.stderr
    return second.stderr.strip()


def interrupts() -> str:
    """Ctrl-C and Ctrl-Break end a run with a sentence and their exit codes; it resumes."""
    said = []
    for event, code, name in ((0, CTRL_C, "Ctrl-C"), (1, CTRL_BREAK, "Ctrl-Break")):
        if event and is_wine():
            said.append("Ctrl-Break not tried: Wine's C runtime knows no SIGBREAK")
            continue
        output = fresh(f"interrupted-{event}")
        line = words(output, source=str(corpus(rows=20 * ROWS)))
        command = [sys.executable, "-c", INTERRUPT, str(event), str(output), *line]
        done = subprocess.run(command, creationflags=_NEW_CONSOLE, timeout=300)
        assert done.returncode == code, f"{name}: exit code {done.returncode}"
        committed = len(parts(output))
        run(*line, timeout_s=600)
        embedmill("verify", str(output))
        said.append(f"{name} {done.returncode}, resumed after {committed} shards")
    return ", ".join(said)


def held() -> str:
    """Another program opens every new file for a moment, as scanners and backups do."""
    output, stop, seen = fresh("held"), threading.Event(), set[Path]()

    def hold() -> None:
        while not stop.is_set():
            for path in [path for path in output.rglob("*") if path not in seen and path.is_file()]:
                seen.add(path)
                try:
                    # Python's own open does not share deletion.
                    with path.open("rb"):
                        time.sleep(0.03)
                except OSError:
                    continue

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        run(*words(output), timeout_s=600)
    finally:
        stop.set()
        thread.join()
    compare(output, undisturbed())
    return f"{len(seen)} files held for 30 ms each"


def codes() -> str:
    """Each kind of error has its exit code and one sentence."""
    output, source = str(fresh("codes")), str(corpus())
    bad = WORK / "bad.jsonl"
    bad.write_text('{"id": "1", "text": ""}\n{"id": "2", "text": "a"}\n', "utf-8")
    table = {
        2: ["run", "--set", "shard.rows=none"],
        3: ["run", "--input", r"C:\nowhere\a.jsonl", "--output", output],
        4: ["run", "--input", source, "--output", output, "--model", "no/such-model"],
        5: ["run", "--input", source, "--output", output, "--provider", "coreml"],
        6: ["run", "--input", source, "--output", "README.md"],
        7: ["run", "--input", str(bad), "--output", str(fresh("quarantined")), "--provider", "cpu", "--quiet"],
    }
    for code, line in table.items():
        done = run(PYTHON, "-m", "embedmill", *line, expected=code)
        assert "Traceback" not in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    return ", ".join(map(str, table))


def names() -> str:
    """Paths as Windows has them: other scripts, spaces, long ones, mixed separators, a redirected console."""
    output = fresh("日本 ü é/" + "long " * 20 + "é")
    source = corpus(Path("with space") / "ä b.jsonl")
    line = f"{source.parent}/*.jsonl"
    done = run(*words(output, source=line), timeout_s=300)
    assert "Traceback" not in done.stderr
    embedmill("verify", str(output).replace("\\", "/"))
    embedmill("report", str(output))
    return f"scripts, spaces, separators; {deep(source)}"


def deep(source: Path) -> str:
    """A path beyond 260 characters: refused with the remedy, or written where long paths are turned on."""
    output = fresh("deep").resolve() / ("x" * 120) / ("y" * 120)
    plain = run(*words(output, source=str(source)), expected=None)
    assert plain.returncode == 0 or "LongPathsEnabled" in plain.stderr, plain.stderr
    long = Path("\\\\?\\" + str(output))
    run(*words(long, source=str(source)), timeout_s=300)
    embedmill("verify", str(long))
    return f"{len(str(output))} characters: {'written' if plain.returncode == 0 else 'refused'}, as \\\\?\\ written"


def directml() -> str:
    """Real texts in every shape that is affordable, float32 and float16, against the CPU's vectors."""
    source, said = corpus(rows=24), []
    reference = fresh("cpu")
    run(*words(reference, source=str(source)), timeout_s=300)
    for precision in ("fp32", "fp16"):
        output = fresh(precision)
        line = words(
            output,
            source=str(source),
            provider="directml",
            more=("--precision", precision, "--set", "engine.budget_tokens=256"),
        )
        done = run(*line, timeout_s=3600)
        least = run(PYTHON, "-c", COSINE, str(reference), str(output)).stdout.strip()
        assert float(least) > (0.999999 if precision == "fp32" else 0.9995), least
        nodes = re.search(r"nodes placed[^;,]*|\d+ of \d+ nodes", done.stdout + done.stderr)
        said.append(f"{precision} cosine >= {least}{f', {nodes[0]}' if nodes else ''}")
    return "; ".join(said)


COSINE = """
import glob, sys
import numpy as np, pyarrow.parquet as pq
a, b = (pq.read_table(sorted(glob.glob(f"{folder}/*.parquet"))).sort_by("id") for folder in sys.argv[1:])
assert a["id"].equals(b["id"])
x, y = (np.array(t["embedding"].to_pylist(), np.float64) for t in (a, b))
print(f"{(x * y).sum(1).min():.9f}")
"""


def worker() -> str:
    """The worker alone in an environment of its own, without pyarrow: the same vectors."""
    develop()
    done = run(
        PYTHON, "-m", "pytest", "-m", "hostile or not hostile", "tests/architecture/test_worker.py", timeout_s=1800
    )
    return done.stdout.strip().splitlines()[-1]


def windowsml() -> str:
    """Microsoft's package of the catalogue is there: doctor goes on, with a sentence where Windows has no catalogue."""
    run(PYTHON, "-m", "pip", "install", "--quiet", "windowsml", timeout_s=600)
    try:
        found = json.loads(embedmill("doctor", "--json", timeout_s=1800).stdout)["findings"]
        told = {finding["provider"]: f"{finding['state']}: {finding['words']}" for finding in found}
    finally:
        run(PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", "windowsml")
    assert told["cpu"].startswith("works"), told
    assert "pip install" not in told["vitisai"], told
    return told["vitisai"]


def develop() -> None:
    """Install what the tests need."""
    line = ["-m", "pip", "install", "--quiet", "--constraint", "constraints.txt", "--editable", ".[dev]"]
    run(PYTHON, *line, timeout_s=1800)


def tests() -> str:
    """The fast tests."""
    develop()
    marks = "not crash and not hostile and not soak"
    command = [
        PYTHON,
        "-m",
        "pytest",
        "-m",
        marks,
        "-n",
        "logical",
        "--maxprocesses",
        "4",
        "-rsfE",
        "-p",
        "no:cacheprovider",
    ]
    # Wine says that it makes links, and makes none.
    done = subprocess.run(command, env=os.environ | {"HF_HUB_DISABLE_SYMLINKS": "1"}, capture_output=True, timeout=5400)
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    assert done.returncode == 0, " / ".join([*failed[:30], lines[-1] if lines else ""])
    return "\n    ".join([lines[-1], *skipped(lines)])


def skipped(lines: list[str]) -> list[str]:
    """Count the reasons of pytest's lines of skipped tests, the most frequent first."""
    reasons: Counter[str] = Counter()
    for line in lines:
        if found := re.match(r"SKIPPED \[(\d+)\] .*?:\d+: (.*)|SKIPPED \[(\d+)\] [^:]+: (.*)", line):
            reasons[found[2] or found[4]] += int(found[1] or found[3])
    return [f"{count} skipped: {reason}" for reason, count in reasons.most_common()]


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        readme,
        sample,
        codes,
        names,
        locked,
        held,
        interrupts,
        kills,
        doctor,
        worker,
        windowsml,
        directml,
        tests,
    )
}


def run(*command: str, expected: int | None = 0, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a command whose output is a pipe, as under a scheduler. Raises AssertionError for another exit code.

    None takes any.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=timeout_s
    )
    assert expected in (None, done.returncode), (
        f"{' '.join(command)}: exit code {done.returncode}: {done.stderr[-2000:]}"
    )
    return done


def embedmill(*line: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
    return run(PYTHON, "-m", "embedmill", *line, timeout_s=timeout_s)


def words(output: Path, *, source: str = "", provider: str = "cpu", more: tuple[str, ...] = ()) -> list[str]:
    """The command line of a job that every run computes alike."""
    fixed = ["--set", "engine.tune=false", "--set", f"shard.rows={SHARD_ROWS}", "--provider", provider]
    return [
        PYTHON,
        "-m",
        "embedmill",
        "run",
        "--input",
        source or str(corpus()),
        "--output",
        str(output),
        *fixed,
        *more,
    ]


def corpus(name: Path = Path("a.jsonl"), rows: int = ROWS) -> Path:
    """Documents of a few words each."""
    path = WORK / f"{rows}" / name
    if not path.is_file():
        chance, vocabulary = random.Random(1), Path("README.md").read_text("utf-8").split()
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [{"id": f"{number}", "text": " ".join(chance.choices(vocabulary, k=20))} for number in range(rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return path


def fresh(name: str) -> Path:
    """A folder for an output that is not there yet."""
    path = WORK / "out" / name
    shutil.rmtree(path, ignore_errors=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def undisturbed() -> dict[str, bytes]:
    """The files of a run that nothing happened to."""
    output = WORK / "out" / "undisturbed"
    if not (output / "_manifest.json").is_file():
        run(*words(fresh("undisturbed")), timeout_s=600)
    return parts(output)


def parts(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(output.glob("*.parquet"))}


def compare(output: Path, expected: dict[str, bytes]) -> None:
    """Raise AssertionError unless an output is equal and verified."""
    found = parts(output)
    assert found == expected, f"{output}: {len(found)} parts, or other bytes"
    embedmill("verify", str(output))


def settle(output: Path) -> None:
    """Wait until the interpreter behind the environment's launcher is gone too."""
    lock = output / "_run.lock"

    def is_free() -> bool:
        try:
            lock.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    until(is_free)


def is_wine() -> bool:
    """Tell if this Windows is Wine."""
    return shutil.which("winepath") is not None


def until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


if __name__ == "__main__":
    # The code page of Windows has no letters of other scripts.
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    sys.exit(main())
