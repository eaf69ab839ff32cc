"""Paths, folders and globs become one list of files, the same on every machine."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from embedmill.base.config import InputTable
from embedmill.base.errors import InputError
from embedmill.base.records import InputFile
from embedmill.source import discover
from tests.support.systems import at

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes, and links need a privilege")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def find(*paths: Path | str, format: str = "auto") -> list[InputFile]:
    return discover(InputTable(paths=tuple(str(path) for path in paths), format=format)).files  # type: ignore[arg-type]


def names(*paths: Path | str, format: str = "auto") -> list[str]:
    return [file.name for file in find(*paths, format=format)]


def test_a_folder_is_read_recursively_in_the_order_of_names(tmp_path: Path) -> None:
    touch(tmp_path, "b/a.jsonl", "a.csv", "b.parquet", "B.pq", "b/c/d.ndjson.gz", "e.tsv.zst")
    assert names(tmp_path) == ["B.pq", "a.csv", "b.parquet", "b/a.jsonl", "b/c/d.ndjson.gz", "e.tsv.zst"]


def test_an_output_below_the_input_is_no_input_but_can_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "out/part-00000.parquet", "out/_ledger/job.json")
    assert names(tmp_path) == ["a.jsonl"]
    assert names(tmp_path / "out") == ["part-00000.parquet"]


@pytest.mark.parametrize("pattern", ["**/*.parquet", "**", "*/*", "*", "[ab]*/*.parquet", "a/../*/*.parquet"])
def test_outputs_below_a_glob_are_left_out(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "a/x.parquet", "b/part-00000.parquet", "b/_ledger/job.json", "b/quarantine/part-00000.jsonl")
    touch(tmp_path, "b/_manifest.json")
    assert {Path(file.path).name for file in find(tmp_path / pattern)} <= {"x.parquet"}


def test_an_output_that_is_named_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "b/part-00000.parquet", "b/_ledger/job.json")
    for pattern in ("b", "b/*.parquet", "b/part-00000.parquet"):
        assert [Path(file.path).name for file in find(tmp_path / pattern)] == ["part-00000.parquet"]


def test_a_folder_leaves_out_hidden_names_and_unknown_endings(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", ".b.jsonl", "_c.jsonl", "_d/e.jsonl", ".f/g.jsonl", "h.txt", "h.md", "i.json.bz2")
    touch(tmp_path, "j.parquet.gz", "k", "l.txt", "_SUCCESS", ".h.crc", "out/_ledger/job.json", "out/part-0.parquet")
    found = discover(InputTable(paths=(str(tmp_path),)))
    assert [file.name for file in found.files] == ["a.jsonl", "i.json.bz2"]
    assert found.left_out == {
        ".md": 1,
        ".parquet.gz": 1,
        ".txt": 2,
        "hidden .jsonl": 2,
        "hidden folder": 2,
        "no ending": 1,
        "output of embedmill": 1,
    }


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        ("_delta_log/0.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/00000-1f.metadata.json", "Iceberg"),
    ],
)
def test_a_table_whose_files_hold_deleted_rows_is_no_folder_of_files(tmp_path: Path, log: str, kind: str) -> None:
    touch(tmp_path, "lake/t/data/a.parquet", f"lake/t/{log}")
    for path in (tmp_path, tmp_path / "lake" / "t", tmp_path / "l*"):
        with pytest.raises(InputError, match=f"t is a table of {kind}, .*name its files: .*t.*\\*\\*.*parquet"):
            find(path)
    assert names(tmp_path / "lake" / "t" / "**" / "*.parquet") == ["data/a.parquet"]


@pytest.mark.parametrize(
    ("name", "format", "compression"),
    [
        ("a.parquet", "parquet", ""),
        ("a.snappy.parquet", "parquet", ""),
        ("a.pq", "parquet", ""),
        ("a.JSONL", "jsonl", ""),
        ("a.ndjson.zst", "jsonl", "zstd"),
        ("a.csv.gz", "csv", "gzip"),
        ("a.json", "jsonl", ""),
        ("a.json.gz", "jsonl", "gzip"),
        ("a.csv.BZ2", "csv", "bzip2"),
        ("a.ndjson.xz", "jsonl", "xz"),
        ("a.tsv", "csv", ""),
    ],
)
def test_the_ending_tells_format_and_compression(tmp_path: Path, name: str, format: str, compression: str) -> None:
    touch(tmp_path, name)
    (file,) = find(tmp_path / name)
    assert (file.format, file.compression) == (format, compression)
    assert (file.path, file.size_bytes) == (str(tmp_path / name), len(name))


def test_a_file_is_named_below_its_folder(tmp_path: Path) -> None:
    touch(tmp_path, "deep/er/a.jsonl")
    assert names(tmp_path / "deep/er/a.jsonl") == ["a.jsonl"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jsonl", ["a.jsonl"]),
        ("x/*.jsonl", ["b.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "x/b.jsonl", "x/y/c.jsonl"]),
        ("x/**/*.jsonl", ["b.jsonl", "y/c.jsonl"]),
        ("x/**", ["b.jsonl", "y/c.jsonl"]),
        ("?/y/c.jsonl", ["x/y/c.jsonl"]),
        ("**/y/*", ["x/y/c.jsonl"]),
        ("[x]", ["x/b.jsonl", "x/y/c.jsonl"]),
        ("x/../*.jsonl", ["a.jsonl"]),
    ],
)
def test_a_glob_names_files_below_its_first_part_with_magic(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    touch(tmp_path, "a.jsonl", "x/b.jsonl", "x/y/c.jsonl", "x/.d.jsonl", ".z/e.jsonl")
    assert names(tmp_path / pattern) == expected


def test_a_relative_path_stays_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "x/a.jsonl")
    monkeypatch.chdir(tmp_path)
    assert [(file.path, file.name) for file in find("*/a.jsonl")] == [(str(Path("x") / "a.jsonl"), "x/a.jsonl")]


def test_a_file_whose_name_looks_like_a_glob_is_taken_as_it_stands(tmp_path: Path) -> None:
    touch(tmp_path, "a[1].jsonl", "a1.jsonl")
    assert names(tmp_path / "a[1].jsonl") == ["a[1].jsonl"]


@posix
def test_paths_keep_their_order_and_a_file_found_twice_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.jsonl", "c.jsonl")
    (tmp_path / "d.jsonl").symlink_to("b.jsonl")
    assert names(tmp_path / "c.jsonl", tmp_path / "?.jsonl", tmp_path) == ["c.jsonl", "a.jsonl", "b.jsonl"]


@posix
def test_a_link_to_a_file_is_read_under_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "blobs/1f2e")
    (tmp_path / "a.jsonl").symlink_to("blobs/1f2e")
    assert names(tmp_path) == names(tmp_path / "*.jsonl") == ["a.jsonl"]


@posix
@pytest.mark.parametrize("pattern", ["", "**/*.jsonl", "**", "*/**/*.jsonl"])
def test_folders_linked_in_a_circle_end(tmp_path: Path, pattern: str) -> None:
    touch(tmp_path, "x/a.jsonl", "y/b.jsonl")
    for link in ("x/up", "x/across", "y/up", "y/across"):
        (tmp_path / link).symlink_to(tmp_path if link.endswith("up") else tmp_path / "x")
    assert {Path(file.path).resolve().name for file in find(tmp_path / pattern)} == {"a.jsonl", "b.jsonl"}


def test_equal_names_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jsonl", "y/a.jsonl")
    with pytest.raises(
        InputError, match=f"{at('x/a.jsonl')} and .*{at('y/a.jsonl')} would both be named 'a.jsonl'.*common parent"
    ):
        find(tmp_path / "x", tmp_path / "y")


def test_a_set_format_is_taken_as_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.json", "b.txt.gz", "c.csv", "d.jsonl")
    assert names(tmp_path / "?.*", format="jsonl") == ["a.json", "b.txt.gz", "c.csv", "d.jsonl"]
    assert [file.compression for file in find(tmp_path / "b.txt.gz", format="jsonl")] == ["gzip"]
    # In a folder not where the ending is that of another format.
    assert names(tmp_path, format="jsonl") == ["a.json", "b.txt.gz", "d.jsonl"]
    assert discover(InputTable(paths=(str(tmp_path),), format="jsonl")).left_out == {".csv": 1}


def test_the_digest_follows_the_content(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.jsonl")
    before = [file.digest for file in find(tmp_path)]
    (tmp_path / "b.jsonl").write_text("B.jsonl")
    after = [file.digest for file in find(tmp_path)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]


@posix
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("none.jsonl", "no such file or folder"),
        ("*.csv", "nothing to read there; known endings are .parquet"),
        ("empty", "nothing to read there; known endings are .parquet"),
        ("a.txt", "its ending is not known.*set `input.format`"),
        ("*.txt", "a.txt: its ending is not known"),
        ("fifo.jsonl", "not a regular file"),
        ("fifo*", "not a regular file"),
        ("dangling.jsonl", "cannot be read: No such file"),
        ("self.jsonl", "cannot be read: .*symbolic links"),
    ],
)
def test_a_path_that_cannot_be_read_is_named(tmp_path: Path, path: str, message: str) -> None:
    touch(tmp_path, "a.txt")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "fifo.jsonl")
    (tmp_path / "dangling.jsonl").symlink_to("nowhere")
    (tmp_path / "self.jsonl").symlink_to("self.jsonl")
    with pytest.raises(InputError, match=message) as caught:
        find(tmp_path / path)
    assert str(tmp_path) in str(caught.value)


@posix
def test_a_pipe_in_a_folder_is_refused_without_waiting_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"a\.jsonl: not a regular file"):
        find(tmp_path)


@posix
@pytest.mark.parametrize(
    ("path", "message"),
    [("/dev/zero", "not a regular file"), ("s3://bucket/a.jsonl", "only local files"), (" ", "input path is empty")],
)
def test_what_is_no_local_file_is_refused(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find(path)


def test_no_paths_is_an_error_that_says_where_to_set_them() -> None:
    with pytest.raises(InputError, match=r"`input\.paths`.*--input"):
        find()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl")
    (tmp_path / "a.jsonl").chmod(0)
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read: Permission denied"):
        find(tmp_path)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    touch(tmp_path, "a.jsonl")
    monkeypatch.setattr(io, "FileIO", refuse)
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read: Permission denied; check permissions"):
        find(tmp_path)


@posix
def test_a_file_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"a\xff.jsonl")).write_text("x")
    with pytest.raises(InputError, match="file name is not valid UTF-8"):
        find(tmp_path)
