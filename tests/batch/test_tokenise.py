"""Tokenising gives what the model's own tokenizer gives, truncated at our length, whatever the text's size."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedmill.base.errors import ModelError
from embedmill.base.records import Tokens
from embedmill.batch.tokenise import Tokeniser
from embedmill.model.bundle import Bundle
from embedmill.model.names import TOKENIZER
from tests.support.tiny_model import VOCABULARY, write_tokenizer

CLS, SEP, UNKNOWN, MASK = (VOCABULARY.index(token) for token in ("[CLS]", "[SEP]", "[UNK]", "[MASK]"))
THE, RIVER, STONE = (VOCABULARY.index(word) for word in ("the", "river", "stone"))


@pytest.fixture(scope="module")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


@pytest.fixture(scope="module")
def real_tokenizer(bundle: Bundle) -> Path:
    return bundle.folder / TOKENIZER


def rows(tokens: Tokens) -> list[list[int]]:
    """The ids of each text."""
    return [tokens.ids[start:stop].tolist() for start, stop in zip(tokens.offsets, tokens.offsets[1:], strict=False)]


@cache
def tokeniser(path: Path, max_tokens: int) -> Tokeniser:
    return Tokeniser(path, max_tokens=max_tokens)


@cache
def plain_tokenizer(path: Path) -> Tokenizer:
    """The tokenizers library's own, without anything of ours."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    return tokenizer


def test_each_text_stands_between_the_special_tokens(tiny_tokenizer: Path) -> None:
    tokens = Tokeniser(tiny_tokenizer, max_tokens=32).encode(["the river", "Stone", ""])
    assert rows(tokens) == [[CLS, THE, RIVER, SEP], [CLS, STONE, SEP], [CLS, SEP]]


def test_lengths_count_the_special_tokens(tiny_tokenizer: Path) -> None:
    tokens = Tokeniser(tiny_tokenizer, max_tokens=32).encode(["the river", "stone", ""])
    assert tokens.lengths.tolist() == [4, 3, 2]
    assert [column.dtype.name for column in (tokens.ids, tokens.offsets, tokens.truncated)] == [
        "int32",
        "int64",
        "bool",
    ]


def test_no_texts_have_no_tokens(tiny_tokenizer: Path) -> None:
    tokens = Tokeniser(tiny_tokenizer, max_tokens=32).encode([])
    assert (tokens.ids.tolist(), tokens.offsets.tolist(), tokens.truncated.tolist()) == ([], [0], [])


def test_a_text_is_truncated_at_the_length_and_keeps_its_special_tokens(tiny_tokenizer: Path) -> None:
    tokens = Tokeniser(tiny_tokenizer, max_tokens=5).encode(["the river the", "the river the stone", "the"])
    assert rows(tokens) == [[CLS, THE, RIVER, THE, SEP], [CLS, THE, RIVER, THE, SEP], [CLS, THE, SEP]]
    assert tokens.truncated.tolist() == [False, True, False]


def test_the_prompt_comes_before_every_text_and_counts(tiny_tokenizer: Path) -> None:
    tokens = Tokeniser(tiny_tokenizer, max_tokens=5, prompt="the river ").encode(["stone", "stone the"])
    assert rows(tokens) == [[CLS, THE, RIVER, STONE, SEP]] * 2
    assert tokens.truncated.tolist() == [False, True]


def test_padding_and_truncation_in_the_tokenizer_file_are_ignored(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json", truncate=4, pad=16)
    tokens = Tokeniser(path, max_tokens=6).encode(["the river the stone", "the"])
    assert rows(tokens) == [[CLS, THE, RIVER, THE, STONE, SEP], [CLS, THE, SEP]]
    assert tokens.truncated.tolist() == [False, False]


def test_special_tokens_written_in_a_text_are_taken_as_the_tokenizer_takes_them(tiny_tokenizer: Path) -> None:
    tokens = Tokeniser(tiny_tokenizer, max_tokens=32).encode(["the [MASK] river [SEP]"])
    assert rows(tokens) == [[CLS, THE, MASK, RIVER, SEP, SEP]]


def test_text_and_prompt_are_lower_cased_where_the_model_says_so(tmp_path: Path) -> None:
    path = write_tokenizer(tmp_path / "tokenizer.json", lowercase=False)
    lowering = Tokeniser(path, max_tokens=32, prompt="The ", lowercase=True).encode(["RIVER"])
    keeping = Tokeniser(path, max_tokens=32, prompt="The ").encode(["RIVER"])
    assert rows(lowering) == [[CLS, THE, RIVER, SEP]]
    assert rows(keeping) == [[CLS, UNKNOWN, UNKNOWN, SEP]]


def test_a_text_of_5000_words_equals_the_plain_truncation(real_tokenizer: Path) -> None:
    text = " ".join(f"word{number} of the antidisestablishmentarian river," for number in range(1000))
    assert_as_plain(real_tokenizer, [text], 256)


def test_a_text_of_a_megabyte_equals_the_plain_truncation(real_tokenizer: Path) -> None:
    text = "The ferry leaves the island at seven o'clock; nobody told her. " * 17_000
    assert len(text) > 1 << 20
    assert_as_plain(real_tokenizer, [text], 256)


def test_a_long_text_costs_little_more_than_its_beginning(real_tokenizer: Path) -> None:
    tokeniser = Tokeniser(real_tokenizer, max_tokens=256)
    started = time.perf_counter()
    tokeniser.encode(["the ferry leaves the island " * 600_000])
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "text",
    [
        "a" * 80_000,
        "ab" * 40 + " " + "c" * 80_000 + " the end",
        " " * 80_000,
        " " * 30_000 + "the river",
        "the" + "\n" * 30_000 + "river" + "\t" * 30_000 + "stone",
        "é" * 50 + "\N{COMBINING ACUTE ACCENT}" * 30_000 + " river",
        "水" * 30_000,
        "." * 30_000,
        "the river\x0cstone " * 3_000,
        "\x0c".join(["river"] * 8_000),
        "\N{ZERO WIDTH SPACE}" * 30_000 + "the river",
        "\N{IDEOGRAPHIC SPACE}".join(["river"] * 8_000),
        "x\x00y\ufffdz " * 6_000,
        "\r\n".join(["the river stone"] * 3_000),
        "\N{GRINNING FACE}" * 50_000,
    ],
    ids=lambda text: f"{text[:3]!a} and {len(text)} more",
)
def test_awkward_long_texts_equal_the_plain_truncation(real_tokenizer: Path, text: str) -> None:
    assert_as_plain(real_tokenizer, [text], 256)


SPACES = (" ", "  ", "\n", "\t", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\u200b")
OTHERS = ("the", "river", "x", "xyz", "7", ".", "\ufeff", "\x00", "é", "e\u0301", "水", "[SEP]", "[", "\U0001f600")
PIECES = st.sampled_from([*SPACES, *OTHERS])
TEXTS = st.lists(st.tuples(PIECES, st.integers(1, 60)).map(lambda pair: pair[0] * pair[1]), max_size=12).map("".join)


@settings(max_examples=150)
@given(texts=st.lists(TEXTS, max_size=4), max_tokens=st.integers(3, 8))
def test_any_text_equals_the_plain_truncation(tiny_tokenizer: Path, texts: list[str], max_tokens: int) -> None:
    assert_as_plain(tiny_tokenizer, texts, max_tokens)


@settings(max_examples=30)
@given(texts=st.lists(st.text(max_size=400), max_size=4), max_tokens=st.integers(3, 8))
def test_any_unicode_equals_the_plain_truncation(real_tokenizer: Path, texts: list[str], max_tokens: int) -> None:
    assert_as_plain(real_tokenizer, texts, max_tokens)


def test_order_is_kept_over_many_texts(tiny_tokenizer: Path) -> None:
    texts = ["the " * (number % 7) for number in range(1000)]
    tokens = Tokeniser(tiny_tokenizer, max_tokens=32).encode(texts)
    assert tokens.lengths.tolist() == [2 + number % 7 for number in range(1000)]


def test_what_is_called_between_texts_can_end_the_work(tiny_tokenizer: Path) -> None:
    class EnoughError(Exception):
        pass

    def stop() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        Tokeniser(tiny_tokenizer, max_tokens=32).encode(["the river"], between=stop)


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b"\xff\xfe"], ids=repr)
def test_a_file_that_is_no_tokenizer_is_a_model_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer file"):
        Tokeniser(path, max_tokens=32)


def test_a_missing_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer file"):
        Tokeniser(tmp_path / "tokenizer.json", max_tokens=32)


def assert_as_plain(path: Path, texts: list[str], max_tokens: int) -> None:
    """Ids and truncation flags are those of the library's own truncation."""
    plain = plain_tokenizer(path)
    plain.enable_truncation(max_tokens)
    expected = plain.encode_batch(texts)
    tokens = tokeniser(path, max_tokens).encode(texts)
    assert rows(tokens) == [encoding.ids for encoding in expected]
    assert tokens.truncated.tolist() == [len(encoding.overflowing) > 0 for encoding in expected]
