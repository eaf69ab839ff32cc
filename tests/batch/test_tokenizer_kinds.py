"""Chunks fit their window and lose nothing, and long texts have the tokens of the whole, for every tokenizer kind."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedmill.base.records import Passages, Tokens
from embedmill.batch.chunk import Chunker
from embedmill.batch.tokenise import Tokeniser, load_tokenizer
from embedmill.model.bundle import Bundle
from embedmill.model.names import TOKENIZER
from tests.support.tokenizer_kinds import KINDS, write_tokenizers

DEFAULT = "the default model's"
KIND = st.sampled_from([*KINDS, DEFAULT])
BASE64 = "aGVsbG8gd29ybGQQmFzZTY0IGlzIGxvbmcYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo"
PIECES = st.sampled_from(
    [
        *("the river", "island.", "Sprachmodell", "return x", "aaaa", "zq", BASE64, BASE64 * 3, "x" * 101),
        *("東京の川", "ข้าวสวย", "👩‍👩‍👧", "🙂", "e\u0301\u0323", "\u0301" * 7, "ﬁ", "½", "İ", "ß", "\ufdfa", "각"),
        *(" ", "  ", "\n", "\r\n", "\t", "\x0c", "\x1c", "\x85", "\xa0", "\u3000", "\u2028", " " * 40, "\n" * 40),
        *("\u200b", "\u200d", "\ufeff", "\x00", "\x01", "\ufffd", "▁", "Ġ", "<s>", "</s>", "<unk>", "=" * 60, "."),
    ]
)
TEXT = st.one_of(
    st.lists(st.tuples(PIECES, st.integers(1, 4)).map(lambda pair: pair[0] * pair[1]), max_size=15).map("".join),
    st.text(max_size=200),
)
PROMPT = st.sampled_from(["", "query: ", "the ri", "x", "e", "query:\n", "a" * 50])


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> dict[str, Path]:
    return write_tokenizers(tmp_path_factory.mktemp("tokenizers")) | {DEFAULT: bundle.folder / TOKENIZER}


@cache
def plain(path: Path, *, lowercase: bool = False) -> Tokenizer:
    return load_tokenizer(path, lowercase=lowercase)


def ids_of(tokens: Tokens) -> list[list[int]]:
    return [tokens.ids[start:stop].tolist() for start, stop in pairwise(tokens.offsets)]


def cut(
    path: Path, texts: list[str], room: int, overlap: int = 0, prompt: str = "", *, lowercase: bool = False
) -> tuple[Passages, Tokens, int]:
    """The chunks, their tokens, and the window that leaves `room` tokens beside the prompt."""
    window = room + len(plain(path, lowercase=lowercase).encode(prompt).ids)
    chunker = Chunker(path, chunk_tokens=window, overlap=overlap, prompt=prompt, lowercase=lowercase)
    return *chunker.cut(texts), window


@settings(max_examples=60, deadline=None)
@given(
    kind=KIND,
    texts=st.lists(TEXT, min_size=1, max_size=3),
    room=st.integers(1, 40),
    overlap=st.integers(0, 39),
    prompt=PROMPT,
    lowercase=st.booleans(),
)
def test_a_chunk_has_the_tokens_that_the_model_gets_and_fits(
    paths: dict[str, Path], kind: str, texts: list[str], room: int, overlap: int, prompt: str, lowercase: bool
) -> None:
    passages, tokens, window = cut(paths[kind], texts, room, min(overlap, room - 1), prompt, lowercase=lowercase)
    whole = [plain(paths[kind], lowercase=lowercase).encode(prompt + text).ids for text in passages.texts]
    for text, ids, own, truncated in zip(passages.texts, whole, ids_of(tokens), tokens.truncated, strict=True):
        assert len(own) <= window
        assert truncated == (len(ids) > window)
        assert not truncated or len(text) == 1, "only a single character may be too long"
        assert truncated or own == ids


@settings(max_examples=60, deadline=None)
@given(kind=KIND, texts=st.lists(TEXT, min_size=1, max_size=3), room=st.integers(1, 40), lowercase=st.booleans())
def test_without_overlap_only_white_space_lies_outside_of_the_chunks(
    paths: dict[str, Path], kind: str, texts: list[str], room: int, lowercase: bool
) -> None:
    passages, _, _ = cut(paths[kind], texts, room, lowercase=lowercase)
    for number, text in enumerate(texts):
        own = passages.document == number
        spans = list(zip(passages.start[own].tolist(), passages.stop[own].tolist(), strict=True))
        assert spans
        assert all(start <= stop for start, stop in spans)
        outside = [(0, spans[0][0]), *((one[1], after[0]) for one, after in pairwise(spans)), (spans[-1][1], len(text))]
        assert all(start <= stop and not text[start:stop].strip() for start, stop in outside)


@settings(max_examples=60, deadline=None)
@given(kind=KIND, text=TEXT, room=st.integers(1, 40), overlap=st.integers(0, 39), prompt=PROMPT)
def test_with_an_overlap_every_character_is_in_some_chunk_and_each_chunk_brings_new_ones(
    paths: dict[str, Path], kind: str, text: str, room: int, overlap: int, prompt: str
) -> None:
    passages, _, _ = cut(paths[kind], [text], room, min(overlap, room - 1), prompt)
    spans = list(zip(passages.start.tolist(), passages.stop.tolist(), strict=True))
    assert passages.texts == [text[start:stop] for start, stop in spans]
    inside = {place for start, stop in spans for place in range(start, stop)}
    assert all(character.isspace() for place, character in enumerate(text) if place not in inside)
    assert all(one[0] < after[0] and one[1] < after[1] for one, after in pairwise(spans))


@settings(max_examples=40, deadline=None)
@given(kind=KIND, text=TEXT, repeats=st.integers(1, 200), max_tokens=st.integers(6, 12), prompt=PROMPT)
def test_a_truncated_text_has_the_tokens_of_the_whole(
    paths: dict[str, Path], kind: str, text: str, repeats: int, max_tokens: int, prompt: str
) -> None:
    whole = load_tokenizer(paths[kind])
    whole.enable_truncation(max_tokens)
    expected = whole.encode(prompt + text * repeats)
    tokens = Tokeniser(paths[kind], max_tokens=max_tokens, prompt=prompt).encode([text * repeats])
    assert ids_of(tokens) == [expected.ids]
    assert tokens.truncated.tolist() == [bool(expected.overflowing)]


@pytest.mark.hostile
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "text",
    [BASE64 * 3000, "水" * 300_000, "a" * 300_000, "e" + "\u0301" * 300_000, "= " * 150_000],
    ids=lambda text: f"{text[:2]!a} and {len(text)} more",
)
def test_a_text_longer_than_what_is_looked_at_has_the_tokens_of_the_whole(
    paths: dict[str, Path], kind: str, text: str
) -> None:
    whole = load_tokenizer(paths[kind])
    whole.enable_truncation(32)
    tokens = Tokeniser(paths[kind], max_tokens=32).encode([text])
    assert ids_of(tokens) == [whole.encode(text).ids]
