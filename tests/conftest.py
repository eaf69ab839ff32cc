"""What every test may ask for: the default bundle, an empty folder of kept models, a tiny model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from hypothesis import settings

from embedmill.base.config import DEFAULT_MODEL
from embedmill.jobs.models import find_bundle
from embedmill.model.bundle import Bundle
from tests.support.jobs import tiny_bundle
from tests.support.tiny_model import write_tiny_model

# A busy machine is no reason to fail, and a quick suite is run more often.
settings.register_profile("embedmill", deadline=None, max_examples=60)
settings.load_profile("embedmill")


@pytest.fixture(scope="session", autouse=True)
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder that no test reads or writes unasked: what lies in the project's own decides nothing."""
    before, folder = Path.cwd(), tmp_path_factory.mktemp("cwd")
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(before)  # processes of tests import `tests` too
    yield
    os.chdir(before)
    assert sorted(folder.iterdir()) == []


class Tell(Protocol):
    """Prints a line, and counts by what was counted, when all tests are done."""

    def __call__(self, title: str, counts: Mapping[str, int] = ...) -> None: ...


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """What a test found out; its report carries it to the process that prints."""

    def tell(title: str, counts: Mapping[str, int] | None = None) -> None:
        lines = [f"  {count:6,} {what}" for what, count in sorted((counts or {}).items())]
        request.node.user_properties.append(("told", "\n".join([title, *lines])))

    return tell


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    ends = [report for report in reports if getattr(report, "when", None) == "teardown"]
    told = [text for report in ends for name, text in report.user_properties if name == "told"]
    if told:
        terminalreporter.section("counted")
    for text in sorted(told):
        terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The default model's bundle, built once where this user's models are kept."""
    return find_bundle(DEFAULT_MODEL)


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which no model is kept yet; its folder of models."""
    monkeypatch.setenv("EMBEDMILL_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence-transformers folder with a tiny random BERT: 32 dimensions, mean pooling, 32 tokens."""
    folder = write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    # Before any test patches what builds it.
    tiny_bundle(folder)
    return folder
