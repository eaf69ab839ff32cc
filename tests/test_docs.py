"""The documents name files, functions and targets that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "pipeline/embedmill"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"`([\w./-]+\.(?:py|md|toml|txt)|[\w.-]+(?:/[\w.-]+)*/)`")
PLACE = re.compile(r"\b([a-z_/]+\.py): ([\w.]+)")
LINK = re.compile(r"\]\(([^):#]+)(?:#[\w-]+)?\)")
MADE_BY_USERS = {"configs/mine.toml"}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@every_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = set(FILE.findall(page.read_text("utf-8"))) - MADE_BY_USERS
    assert [name for name in sorted(named) if "NAME" not in name and not exists(name)] == []


@every_page
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@every_page
def test_every_function_and_class_is_in_the_file_that_a_page_says(page: Path) -> None:
    places = PLACE.findall(page.read_text("utf-8"))
    assert [f"{file}: {name}" for file, name in places if not defines(file, name)] == []


@every_page
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"`make ([a-z-]+)", page.read_text("utf-8")))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert [target for target in sorted(targets) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def exists(name: str) -> bool:
    """Return whether a file or folder has this name in the repository, the package or `docs/`."""
    return any((folder / name).exists() for folder in (ROOT, HOUSE, ROOT / "docs"))


def defines(file: str, name: str) -> bool:
    """Return whether a file of the package defines a function, class or method (`Class.method`)."""
    source = (HOUSE / file).read_text("utf-8") if (HOUSE / file).is_file() else ""
    return all(re.search(rf"^\s*(?:def |class ){part}\b", source, re.MULTILINE) for part in name.split("."))
