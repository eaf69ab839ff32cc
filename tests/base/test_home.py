"""The home of models and measurements, on machines and for users that have none."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from embedmill.base import home
from embedmill.base.errors import OutputError
from embedmill.base.results import Totals
from tests.support.jobs import make_rows, tiny_bundle, write_jsonl
from tests.support.streams import run

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has a folder per user for temporary files")
# A user without a passwd entry, who may read the interpreter wherever it is.
STRANGER = 54321
AS_STRANGER = (
    "setpriv",
    f"--reuid={STRANGER}",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
    "--bounding-set=-all,+dac_read_search",
)
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("HOME", "EMBEDMILL_HOME")} | {
    "PYTHONDONTWRITEBYTECODE": "1"
}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder of temporary files, for a user whose cache folder cannot be made."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delenv("EMBEDMILL_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    return folder


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder that another user may write, on a machine where this one can act as that one."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user")
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(folder.stat().st_mode | 0o055)
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, STRANGER, STRANGER)
    return folder


@posix
class TestPlaces:
    def test_a_private_folder_stands_in_for_a_home(self, temporary: Path, caplog: pytest.LogCaptureFixture) -> None:
        place = temporary / f"embedmill-{os.geteuid()}"
        assert home.homes() == [place] == home.homes()
        assert place.stat().st_mode & 0o777 == 0o700
        [told] = caplog.messages
        assert told == (
            f"/dev/null/embedmill cannot be written, so models and measurements are in {place}; set EMBEDMILL_HOME to a"
            " folder that can be written"
        )

    @pytest.mark.parametrize("kind", ["open", "link", "file"])
    def test_a_folder_that_others_may_have_made_is_refused(self, temporary: Path, kind: str) -> None:
        place = temporary / f"embedmill-{os.geteuid()}"
        if kind == "open":
            place.mkdir()
            place.chmod(0o777)
        elif kind == "link":
            (temporary / "elsewhere").mkdir(mode=0o700)
            place.symlink_to("elsewhere")
        else:
            place.touch()
        with pytest.raises(OutputError, match=r"no private folder can be made .*; set EMBEDMILL_HOME to a folder"):
            home.homes()

    @pytest.mark.parametrize("relative", ["", "~", "here"])
    def test_a_relative_home_is_not_used(self, temporary: Path, monkeypatch: pytest.MonkeyPatch, relative: str) -> None:
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", relative)
        assert all(place.is_absolute() for place in home.homes())

    def test_a_named_home_has_no_stand_in(self, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMBEDMILL_HOME", "/dev/null/home")
        assert home.homes() == [Path("/dev/null/home")]
        with (
            pytest.raises(OutputError, match=r"^/dev/null/home/models cannot be written: .*; set EMBEDMILL_HOME to a"),
            home.scratch_folder(home.home_folder() / "models"),
        ):
            pass
        assert list(temporary.iterdir()) == []

    def test_a_record_that_cannot_be_kept_is_a_warning_about_the_home(
        self, temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("EMBEDMILL_HOME", "/dev/null/home")
        home.write_record(home.in_home("tuned", "a.json"), Totals())
        [told] = caplog.messages
        assert re.fullmatch(r"a measurement is not kept: .* set EMBEDMILL_HOME to a folder that can be written", told)
        assert "committed" not in told


class TestStranger:
    def run_with(self, model: str, stranger: Path, environment: Mapping[str, str]) -> str:
        """What a run prints that ends well."""
        source = write_jsonl(stranger / "a.jsonl", make_rows(5))
        code, printed = self.go(
            ["run", "--model", model, "--input", str(source), "--output", str(stranger / "out")], stranger, environment
        )
        assert code == 0, printed
        return printed

    def go(self, words: list[str], stranger: Path, environment: Mapping[str, str]) -> tuple[int, str]:
        return run(words, "", {**ENVIRONMENT, "TMPDIR": str(stranger), **environment}, before=AS_STRANGER)

    @pytest.mark.parametrize(
        "environment", [{}, pytest.param({"HOME": "/"}, marks=pytest.mark.hostile)], ids=["no HOME", "HOME=/"]
    )
    def test_without_a_home_the_job_is_done(
        self, stranger: Path, tiny_model: Path, environment: dict[str, str]
    ) -> None:
        printed = self.run_with(str(tiny_model), stranger, environment)
        assert printed.count("EMBEDMILL_HOME") == 1
        assert "committed output" not in printed
        assert list((stranger / f"embedmill-{STRANGER}" / "models").glob("*/bundle.json")) != []

    @pytest.mark.hostile
    @pytest.mark.parametrize("place", ["/dev/null", "/nonexistent", "/proc/self", "", "relative", "/root"])
    @pytest.mark.parametrize("words", [["model", "list"], ["model", "show", "MODEL"], ["tune", "--show"], ["doctor"]])
    def test_every_command_works_without_a_home(
        self, stranger: Path, tiny_model: Path, words: list[str], place: str
    ) -> None:
        words = [str(tiny_bundle(tiny_model)) if word == "MODEL" else word for word in words]
        words += ["--model", str(tiny_bundle(tiny_model))] if words == ["doctor"] else []
        code, printed = self.go(words, stranger, {"HOME": place})
        assert code == 0, printed
        assert "Traceback" not in printed

    def test_a_home_that_can_only_be_read_is_read(self, stranger: Path, tiny_model: Path) -> None:
        """The model in it is used; another one goes to the private folder."""
        mine = stranger.parent / "mine"
        shutil.copytree(tiny_bundle(tiny_model), mine / ".cache/embedmill/models/kept")
        assert self.run_with("kept", stranger, {"HOME": str(mine)}).count("EMBEDMILL_HOME") == 1
        code, printed = self.go(["model", "add", str(tiny_model), "--name", "new"], stranger, {"HOME": str(mine)})
        assert code == 0, printed
        assert [path.parent.name for path in stranger.glob("embedmill-*/models/*/bundle.json")] == ["new"]
