"""Chunks cover a text's tokens in order, fit the window, overlap as asked, and say where they come from."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedmill.base.errors import ConfigError, ModelError
from embedmill.base.records import Passages
from embedmill.batch.chunk import Chunker, whole
from embedmill.batch.tokenise import Tokeniser
from tests.support.tiny_model import write_tokenizer

SPECIALS = 2
# A "word" of the tiny vocabulary is one token, any other as many as it has letters.
WORDS = st.sampled_from(["the", "river", "stone", "xy", "abcdef", "a.b", "水", "水水水", "7", "The", "é"])
GAPS = st.sampled_from([" ", "  ", "\n", "\t ", "", ".", " \x0c", "\u200b"])
TEXTS = st.lists(st.tuples(WORDS, GAPS), max_size=25).map(lambda pairs: "".join(word + gap for word, gap in pairs))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")


def cut(tokenizer: Path, texts: list[str], chunk_tokens: int, overlap: int = 0, prompt: str = "") -> Passages:
    return Chunker(tokenizer, chunk_tokens=chunk_tokens, overlap=overlap, prompt=prompt).cut(texts)[0]


def tokens_of(tokenizer: Path, text: str) -> list[tuple[int, int]]:
    """(start, stop) characters of the tokens of a whole text."""
    return list(Tokenizer.from_file(str(tokenizer)).encode(text, add_special_tokens=False).offsets)


def held(passages: Passages, tokens: list[tuple[int, int]]) -> list[list[int]]:
    """The numbers of the tokens that lie in each chunk of one text."""
    spans = zip(passages.start.tolist(), passages.stop.tolist(), strict=True)
    return [
        [number for number, token in enumerate(tokens) if start <= token[0] and token[1] <= stop]
        for start, stop in spans
    ]


def test_a_text_is_cut_into_windows_of_whole_words(tokenizer: Path) -> None:
    passages = cut(tokenizer, ["the river the stone the river the"], 3 + SPECIALS)
    assert passages.texts == ["the river the", "stone the river", "the"]


def test_the_overlap_is_shared_with_the_chunk_before(tokenizer: Path) -> None:
    passages = cut(tokenizer, ["the river stone window garden music"], 3 + SPECIALS, overlap=1)
    assert passages.texts == ["the river stone", "stone window garden", "garden music"]


def test_a_word_that_would_be_split_goes_to_the_next_chunk_whole(tokenizer: Path) -> None:
    passages = cut(tokenizer, ["the river xyz stone"], 4 + SPECIALS)
    assert passages.texts == ["the river", "xyz stone"]


def test_a_word_longer_than_the_window_is_split(tokenizer: Path) -> None:
    assert cut(tokenizer, ["abcdefgh"], 3 + SPECIALS).texts == ["abc", "def", "gh"]


def test_a_text_that_fits_is_one_chunk_as_it_is(tokenizer: Path) -> None:
    texts = ["  the river\n", "the river stone", "", "\t"]
    passages = cut(tokenizer, texts, 3 + SPECIALS)
    assert passages.texts == texts
    assert passages.document.tolist() == [0, 1, 2, 3]
    assert passages.stop.tolist() == [len(text) for text in texts]


def test_chunks_know_their_document_and_their_number(tokenizer: Path) -> None:
    passages = cut(tokenizer, ["the river the stone", "", "the river", "stone " * 5], 2 + SPECIALS)
    assert passages.document.tolist() == [0, 0, 1, 2, 3, 3, 3]
    assert passages.chunk.tolist() == [0, 1, 0, 0, 0, 1, 2]


def test_no_texts_have_no_chunks(tokenizer: Path) -> None:
    passages = cut(tokenizer, [], 8)
    assert passages.texts == []
    assert [len(column) for column in (passages.document, passages.chunk, passages.start, passages.stop)] == [0] * 4


def test_the_columns_are_int64(tokenizer: Path) -> None:
    for texts in ([], ["the river the stone"]):
        passages = cut(tokenizer, texts, 2 + SPECIALS)
        columns = (passages.document, passages.chunk, passages.start, passages.stop)
        assert {column.dtype for column in columns} == {np.dtype(np.int64)}


@settings(max_examples=100)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), window=st.integers(1, 9), overlap=st.integers(0, 8))
def test_chunks_are_the_stated_characters_of_their_document_in_order(
    tokenizer: Path, texts: list[str], window: int, overlap: int
) -> None:
    passages = cut(tokenizer, texts, window + SPECIALS, min(overlap, window - 1))
    places = list(zip(passages.document.tolist(), passages.start.tolist(), passages.stop.tolist(), strict=True))
    assert passages.texts == [texts[document][start:stop] for document, start, stop in places]
    assert sorted({document for document, _, _ in places}) == list(range(len(texts)))
    assert all(one < next_one for one, next_one in pairwise(places))
    numbers = zip(passages.document.tolist(), passages.chunk.tolist(), strict=True)
    assert list(numbers) == [
        (document, number)
        for document in range(len(texts))
        for number in range(passages.document.tolist().count(document))
    ]


@settings(max_examples=100)
@given(text=TEXTS, window=st.integers(1, 9), overlap=st.integers(0, 8))
def test_chunks_cover_every_token_and_share_the_overlap(tokenizer: Path, text: str, window: int, overlap: int) -> None:
    overlap = min(overlap, window - 1)
    tokens = tokens_of(tokenizer, text)
    chunks = held(cut(tokenizer, [text], window + SPECIALS, overlap), tokens)
    assert sorted({number for chunk in chunks for number in chunk}) == list(range(len(tokens)))
    assert all(len(chunk) <= window for chunk in chunks)
    for before, after in pairwise(chunks):
        shared = len(set(before) & set(after))
        assert shared >= min(overlap, len(before) - 1)
        assert shared == 0 or overlap > 0
        assert set(after) - set(before), "a chunk says nothing new"


@settings(max_examples=100)
@given(text=TEXTS, window=st.integers(1, 9), overlap=st.integers(0, 8), prompt=st.sampled_from(["", "the river: "]))
def test_no_chunk_is_truncated_when_it_is_tokenised_again(
    tokenizer: Path, text: str, window: int, overlap: int, prompt: str
) -> None:
    room = SPECIALS + len(tokens_of(tokenizer, prompt))
    passages = cut(tokenizer, [text], window + room, min(overlap, window - 1), prompt)
    again = Tokeniser(tokenizer, max_tokens=window + room, prompt=prompt).encode(passages.texts)
    assert not again.truncated.any()


@settings(max_examples=100)
@given(words=st.lists(st.sampled_from(["the", "river", "xy", "abc"]), max_size=30), window=st.integers(3, 9))
def test_words_that_fit_the_window_are_not_split(tokenizer: Path, words: list[str], window: int) -> None:
    passages = cut(tokenizer, [" ".join(words)], window + SPECIALS)
    assert [word for text in passages.texts for word in text.split()] == words


@pytest.mark.parametrize(
    "text",
    ["the river " * 20_000, "the" * 40_000, "水" * 70_000, ("\x0c".join(["river"] * 30) + " ") * 1_000],
    ids=lambda text: f"{text[:6]!a} and {len(text)} more",
)
def test_a_text_longer_than_one_call_to_the_tokenizer_is_covered_once(tokenizer: Path, text: str) -> None:
    tokens = tokens_of(tokenizer, text)
    passages = cut(tokenizer, [text], 500 + SPECIALS)
    stops = np.searchsorted([start for start, _ in tokens], passages.stop)
    assert (np.diff(stops, prepend=0) <= 500).all()
    assert passages.start[0] <= tokens[0][0]
    assert passages.stop[-1] >= tokens[-1][1]
    assert "".join("".join(passages.texts).split()) == "".join(text.split())


def test_tokens_are_counted_in_lower_case_where_the_model_lowers(tmp_path: Path) -> None:
    cased = write_tokenizer(tmp_path / "tokenizer.json", lowercase=False)
    chunker = Chunker(cased, chunk_tokens=3 + SPECIALS, overlap=0, lowercase=True)
    assert chunker.cut(["XYZ THE RIVER"])[0].texts == ["XYZ", "THE RIVER"]


def test_a_prompt_and_the_special_tokens_take_room_in_the_window(tokenizer: Path) -> None:
    passages = cut(tokenizer, ["the river stone the"], 3 + SPECIALS, prompt="music ")
    assert passages.texts == ["the river", "stone the"]


@pytest.mark.parametrize(
    ("chunk_tokens", "overlap", "prompt", "left"),
    [(2, 0, "", 0), (1, 0, "", 0), (4, 2, "", 2), (4, 3, "", 2), (4, 0, "the river ", 0), (5, 1, "the river ", 1)],
)
def test_a_window_without_room_for_text_is_a_config_error(
    tokenizer: Path, chunk_tokens: int, overlap: int, prompt: str, left: int
) -> None:
    with pytest.raises(ConfigError, match=rf"`text\.chunk_tokens` = {chunk_tokens} leaves {left} tokens for text"):
        Chunker(tokenizer, chunk_tokens=chunk_tokens, overlap=overlap, prompt=prompt)


def test_a_file_that_is_no_tokenizer_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not a tokenizer file"):
        Chunker(tmp_path / "tokenizer.json", chunk_tokens=8, overlap=0)


def test_uncut_texts_are_one_passage_each() -> None:
    passages = whole(["the river", "", "stone"])
    assert passages.texts == ["the river", "", "stone"]
    assert passages.document.tolist() == [0, 1, 2]
    assert passages.chunk.tolist() == [0, 0, 0]
    assert passages.start.tolist() == [0, 0, 0]
    assert passages.stop.tolist() == [9, 0, 5]
