"""Tokenisation, in Rust threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Encoding, Tokenizer, normalizers

from embedmill.base.errors import ModelError, TokenizerFailed
from embedmill.base.records import Model, TokenArray, Tokens

# Texts and characters per call into Rust. An Encoding takes up to 600 bytes per character (emoji as bytes), so this
# bounds memory.
_SLICE_TEXTS = 256
SLICE_CHARACTERS = 1 << 18
# A text longer than this many characters per allowed token is first tried by its beginning.
_CHARACTERS_PER_TOKEN = 16
# A window is full where this many tokens follow. A cut changes those of one word: 100 at most in WordPiece.
_MARGIN_TOKENS = 128
# Where every tokenizer splits. Other white space is not safe: BERT's removes form feeds, and the words join.
_SPACES = " \n\t\r"
# Tells a tokenizer that fails on a text from one that fails on all.
_PLAIN_TEXT = "a"


class Tokeniser:
    """Tokenizer of a model, without saved padding and truncation."""

    @classmethod
    def of(cls, model: Model) -> Self:
        """Load the tokenizer of a model. Raises ModelError."""
        path = model.path(model.tokenizer)
        return cls(path, max_tokens=model.max_tokens, prompt=model.prompt, lowercase=model.lowercase)

    def __init__(self, path: Path, *, max_tokens: int, prompt: str = "", lowercase: bool = False) -> None:
        """Load a file; `max_tokens` counts special tokens. Raises ModelError."""
        self._tokenizer = load_tokenizer(path, lowercase=lowercase)
        self._tokenizer.enable_truncation(max_tokens)
        self._prompt = prompt
        self._first_characters = len(prompt) + _CHARACTERS_PER_TOKEN * (max_tokens + _MARGIN_TOKENS)
        self._most_characters = len(prompt) + most_characters(max_tokens)

    def encode(self, texts: Sequence[str], *, between: Callable[[], None] = lambda: None) -> Tokens:
        """Encode n texts, with prompt and special tokens.

        A text that does not fill its window within `most_characters` counts as truncated there.
        `between` is called every few hundred texts; what it raises ends the work.
        """
        ids = [np.empty(0, np.int32)]
        lengths: list[int] = []
        truncated: list[bool] = []
        for parts in slices(map(self._first_part, texts), SLICE_CHARACTERS):
            between()
            encodings = encoded(self._tokenizer, parts, prompt=self._prompt)
            for place, encoding in enumerate(encodings):
                text = texts[len(lengths)]
                encodings[place], looked_at = self._filled(encoding, parts[place], text, between)
                lengths.append(len(encodings[place]))
                truncated.append(looked_at < len(self._prompt) + len(text) or bool(encodings[place].overflowing))
            ids.append(_ids_of(encodings))
        return Tokens(
            ids=np.concatenate(ids),
            offsets=np.cumsum([0, *lengths], dtype=np.int64),
            truncated=np.array(truncated, np.bool_),
        )

    def _first_part(self, text: str) -> str:
        return self._part(text, self._first_characters)

    def _part(self, text: str, characters: int) -> str:
        """Return the beginning of prompt and text."""
        return beginning(self._prompt + text[: self._most_characters], characters, self._most_characters)

    def _filled(self, encoding: Encoding, part: str, text: str, between: Callable[[], None]) -> tuple[Encoding, int]:
        """Encode more of a text until the window is full.

        Returns the number of characters too.
        """
        characters = self._first_characters
        most = min(len(self._prompt) + len(text), self._most_characters)
        while characters < self._most_characters and len(part) < most and not _is_full(encoding):
            between()
            characters = min(4 * characters, self._most_characters)
            part = self._part(text, characters)
            [encoding] = encoded(self._tokenizer, [part], prompt=self._prompt)
        return encoding, len(part)


def most_characters(max_tokens: int) -> int:
    """Return the most characters to tokenise of a text."""
    return max(SLICE_CHARACTERS, 2 * _CHARACTERS_PER_TOKEN * max_tokens)


def slices(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """Group texts by `characters`; a longer text is alone."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and (len(group) == _SLICE_TEXTS or size + len(text) > characters):
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group


def load_tokenizer(path: Path, *, lowercase: bool = False) -> Tokenizer:
    """Load a tokenizer without padding and truncation. Raises ModelError.

    `lowercase` puts a lower-casing normaliser first, as sentence-transformers does for `do_lower_case`.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust side raises plain Exception, and nothing narrower
        raise ModelError(f"{path} is not a tokenizer file ({error}); add the model again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if lowercase:
        own = [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *own])
    return tokenizer


def encoded(tokenizer: Tokenizer, texts: list[str], *, prompt: str = "", offsets: bool = False) -> list[Encoding]:
    """Encode texts, without special tokens where `offsets` are needed.

    Raises ModelError for a tokenizer that encodes no text after `prompt`, TokenizerFailed for one that fails on some.
    """
    plain = [prompt + _PLAIN_TEXT]
    try:
        if offsets:
            return list(tokenizer.encode_batch(texts, add_special_tokens=False))
        return list(tokenizer.encode_batch_fast(texts))
    except BaseException as error:
        if not _is_of_rust(error):
            raise
        if texts != plain:
            encoded(tokenizer, plain, prompt=prompt, offsets=offsets)
            raise TokenizerFailed(f"the tokenizer fails on a text ({error}); leave the text out") from error
        after = f" after the prompt {prompt!r}" if prompt else ""
        raise ModelError(
            f"its tokenizer encodes no text{after} ({error}); correct it, and add the model again"
        ) from error


def _is_of_rust(error: BaseException) -> bool:
    # A panic is no Exception, and its class has no name to import. Other errors are Exception itself.
    return type(error) is Exception or type(error).__name__ == "PanicException"


def _ids_of(encodings: Sequence[Encoding]) -> TokenArray:
    try:
        return np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32)
    except OverflowError as error:
        raise ModelError(f"its tokenizer has ids beyond 2,147,483,647 ({error}); correct it") from error


def beginning(text: str, limit: int, most: int) -> str:
    """Cut `text` at the last white space before `limit` characters.

    Where the half before `limit` has none, at `most`. Its tokens are those of the whole text, but for some close to
    the cut.
    """
    if len(text) <= limit:
        return text
    cut = max(text.rfind(space, limit // 2, limit) for space in _SPACES)
    return text[: max(cut, 0)].rstrip(_SPACES) or text[:most]


def _is_full(encoding: Encoding) -> bool:
    return sum(map(len, encoding.overflowing)) >= _MARGIN_TOKENS
