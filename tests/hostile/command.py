"""The command line, held to end with one line where something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.jobs import (
    embedmill,
    make_config,
    make_rows,
    words_of,
    write_jsonl,
)


class Cli:
    """The command line in this process, on a job of ten good rows in `folder`."""

    def __init__(self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.output = folder / "out"
        self.model = model
        self.source = write_jsonl(folder / "good.jsonl", make_rows(10))
        self._capsys = capsys

    def words(self, *more: str | Path, source: Path | None = None) -> list[str | Path]:
        config = make_config(self.model, source or self.source, self.output, shard={"rows": 5})
        return [*words_of(config), "--quiet", *more]

    def refused(self, code: int, *words: str | Path) -> str:
        """The one line on standard error with which a command must end."""
        assert embedmill(*words) == code
        told = self._capsys.readouterr()
        assert told.out == ""
        lines: list[str] = told.err.splitlines()
        assert len(lines) == 1, told.err
        assert "Traceback" not in lines[0]
        return lines[0]

    def refused_input(self, code: int, source: Path, *words: str | Path) -> str:
        """The same, with another input than the good one."""
        return self.refused(code, *self.words(*words, source=source))
