"""One long text, in whatever script, takes neither the memory nor the time of the rows beside it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from embedmill.sink.verify import verify
from tests.hostile.forks import Forks
from tests.support.jobs import make_config, read_output, write_jsonl

BASE64 = "aGVsbG8gd29ybGQhIFRoaXMgaXMgYSBsb25nIHRleHQ+/"
KINDS = ["水", "a", BASE64, "🙂", "👩\u200d👩\u200d👧", "ข้าวสวย", "각", "e\u0301", "\u0301", "\u200b", "\x01", "."]


def embedded(forks: Forks, folder: Path, model: Path, text: str, **text_table: int) -> pa.Table:
    """Run a long text between two short ones; the output."""
    rows = [{"id": number, "text": one} for number, one in enumerate(("the river", text, "stone"))]
    source = write_jsonl(folder / "a.jsonl", rows)
    config = make_config(model, source, folder / "out", text=text_table, limits={"record_bytes": 1 << 27})
    ending = forks.run(config)
    assert (ending.error, ending.words, ending.rows_written) == ("", "", 3)
    assert verify(folder / "out").complete
    return read_output(folder / "out")


@pytest.mark.hostile
@pytest.mark.parametrize("kind", KINDS, ids=ascii)
def test_ten_megabytes_without_a_space_are_embedded_by_their_beginning(
    forks: Forks, tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    text = kind * (10_000_000 // len(kind.encode()))
    table = embedded(forks, tmp_path, tiny_model, text)
    assert table.column("truncated").to_pylist() == [False, True, False]
    assert max(table.column("n_tokens").to_pylist()) <= 32


@pytest.mark.hostile
@pytest.mark.parametrize("space", [" ", "\n", "\t", "\u3000"], ids=ascii)
def test_ten_megabytes_of_white_space_count_as_the_rest_of_a_text(
    forks: Forks, tmp_path: Path, tiny_model: Path, space: str
) -> None:
    text = "stone" + space * (10_000_000 // len(space.encode())) + "the river"
    table = embedded(forks, tmp_path, tiny_model, text)
    assert table.column("truncated").to_pylist() == [False, True, False]
    assert table.column("embedding")[1] == table.column("embedding")[2]


@pytest.mark.hostile
@pytest.mark.parametrize("kind", [*KINDS, "the river\n" + " " * 5000], ids=ascii)
def test_a_long_text_is_cut_into_chunks_that_hold_all_of_it(
    forks: Forks, tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    text = kind * (100_000 // len(kind))
    table = embedded(forks, tmp_path, tiny_model, text, chunk_tokens=32).slice(1)
    own = table.slice(0, table.num_rows - 1)
    assert not any(own.column("truncated").to_pylist())
    assert max(own.column("n_tokens").to_pylist()) <= 32
    spans = zip(own.column("char_start").to_pylist(), own.column("char_end").to_pylist(), strict=True)
    assert "".join("".join(text[start:stop] for start, stop in spans).split()) == "".join(text.split())
