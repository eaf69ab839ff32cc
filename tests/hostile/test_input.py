"""Whatever is wrong with an input file, one sentence names it and what to do."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedmill.sink.folder import read_entries
from embedmill.sink.verify import verify
from tests.hostile.command import Cli
from tests.support.jobs import (
    make_rows,
    tiny_bundle,
)


class TestInput:
    def test_a_missing_text_column_is_named_with_those_that_are_there(self, cli: Cli) -> None:
        pq.write_table(pa.table({"id": [1], "body": ["stone"]}), cli.folder / "a.parquet")
        line = cli.refused_input(3, cli.folder / "a.parquet")
        assert line == (
            f"InputError: {cli.folder / 'a.parquet'}: there is no column 'text'; the columns are 'id', 'body';"
            " set columns.text to one of them"
        )

    @pytest.mark.parametrize("setting", ["columns.id=idd", 'columns.carry=["title"]'])
    @pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.csv"])
    def test_a_missing_id_or_carried_column_is_named(self, cli: Cli, name: str, setting: str) -> None:
        source = cli.folder / name
        if name == "a.parquet":
            pq.write_table(pa.table({"id": [1], "text": ["stone"]}), source)
        else:
            source.write_text('{"id": 1, "text": "stone"}\n' if name == "a.jsonl" else "id,text\n1,stone\n")
        line = cli.refused_input(3, source, "--set", setting)
        assert f"{source}: there is no column" in line
        assert setting.partition("=")[0] in line

    @pytest.mark.parametrize("pattern", ["absent.jsonl", "*.parquet", "nothing/**/*.csv", "empty"])
    def test_a_path_that_matches_nothing_is_named(self, cli: Cli, pattern: str) -> None:
        (cli.folder / "empty").mkdir()
        line = cli.refused_input(3, cli.folder / pattern)
        assert line.startswith(f"InputError: {cli.folder / pattern}: ")

    def test_no_path_at_all_is_told(self, cli: Cli) -> None:
        line = cli.refused(3, "run", "--model", tiny_bundle(cli.model), "--output", cli.output)
        assert line == "InputError: no input is named; set `input.paths` in the config, or give --input"

    @pytest.mark.parametrize("data", [b"", b"PAR1", b"hello", b"PAR1" + bytes(100) + b"PAR1"])
    def test_a_file_that_is_no_parquet_is_named(self, cli: Cli, data: bytes) -> None:
        (cli.folder / "a.parquet").write_bytes(data)
        line = cli.refused_input(3, cli.folder / "a.parquet")
        assert line.startswith(f"InputError: {cli.folder / 'a.parquet'}: ")
        remedies = ("replace the file or leave it out", "let its name end as its content is")
        assert line.endswith(remedies[data.startswith(b"hello")])

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
    def test_a_truncated_parquet_file_is_named(self, cli: Cli, share: float) -> None:
        source = cli.folder / "a.parquet"
        pq.write_table(pa.Table.from_pylist(make_rows(1000)), source)
        source.write_bytes(source.read_bytes()[: int(share * source.stat().st_size)])
        assert f"{source}: truncated or damaged (parquet)" in cli.refused_input(3, source)

    def test_a_page_damaged_in_the_middle_keeps_the_shards_before_it(self, cli: Cli) -> None:
        source = cli.folder / "a.parquet"
        pq.write_table(pa.Table.from_pylist(make_rows(40)), source, row_group_size=10, write_page_checksum=True)
        column = pq.ParquetFile(source).metadata.row_group(3).column(1)
        data = bytearray(source.read_bytes())
        first = column.dictionary_page_offset or column.data_page_offset
        data[first + column.total_compressed_size - 1] ^= 0xFF
        source.write_bytes(data)
        line = cli.refused_input(3, source)
        assert f"{source}: truncated or damaged (parquet)" in line
        assert len(list(read_entries(cli.output))) >= 4
        assert verify(cli.output).problems == []

    @pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.jsonl.zst"])
    def test_a_truncated_compressed_file_is_named(self, cli: Cli, name: str) -> None:
        source = cli.folder / name
        plain = "id,text\n" + "".join(f"{n},stone {n}\n" for n in range(5000))
        if name.endswith("gz"):
            source.write_bytes(gzip.compress(plain.encode()))
        else:
            with pa.CompressedOutputStream(str(source), "zstd") as packed:
                packed.write(plain.encode())
        source.write_bytes(source.read_bytes()[:-100])
        line = cli.refused_input(3, source)
        assert line.startswith(f"InputError: {source}: truncated or damaged (")

    @pytest.mark.parametrize(
        ("data", "told"),
        [
            (gzip.compress(b"{}", mtime=0), "gzip"),
            ("twenty letters".encode("utf-16-le"), "UTF-16"),
            (b"\x28\xb5\x2f\xfd123", "zstd"),
        ],
    )
    def test_a_file_of_another_kind_than_its_name_says_is_named(self, cli: Cli, data: bytes, told: str) -> None:
        (cli.folder / "a.jsonl").write_bytes(data)
        line = cli.refused_input(3, cli.folder / "a.jsonl")
        assert f"{cli.folder / 'a.jsonl'}: holds {told}" in line

    def test_a_parquet_column_of_numbers_is_no_text(self, cli: Cli) -> None:
        pq.write_table(pa.table({"id": [1], "text": [5]}), cli.folder / "a.parquet")
        line = cli.refused_input(3, cli.folder / "a.parquet")
        assert "a.parquet: the column 'text' is int64; expected strings" in line

    def test_an_address_of_another_machine_is_not_read(self, cli: Cli) -> None:
        line = cli.refused(3, *cli.words("--set", 'input.paths=["s3://bucket/a.parquet"]'))
        assert "only local files are read" in line

    @pytest.mark.parametrize("name", ["a.docx", "a", "a.parquet.gz"])
    def test_a_file_of_unknown_ending_is_named_with_the_known_ones(self, cli: Cli, name: str) -> None:
        (cli.folder / name).touch()
        assert "known endings are .parquet" in cli.refused_input(3, cli.folder / name)
