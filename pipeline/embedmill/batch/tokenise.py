"""Tokenisation, in Rust threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
from tokenizers import Encoding, Tokenizer, normalizers

from embedmill.base.errors import ModelError
from embedmill.base.records import Model, Tokens

# Texts per call into Rust: an Encoding is some 100 bytes per token, so this bounds memory.
_SLICE_TEXTS = 256
# A text longer than this many characters per allowed token is first tried by its beginning.
_CHARACTERS_PER_TOKEN = 32
# Where every tokenizer splits. Other white space is not safe: BERT's removes form feeds, and the words join.
_SPACES = " \n\t\r"


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
        self._max_tokens = max_tokens
        self._prompt = prompt

    def encode(self, texts: Sequence[str], *, between: Callable[[], None] = lambda: None) -> Tokens:
        """Encode n texts, with prompt and special tokens.

        `between` is called every few hundred texts; what it raises ends the work.
        """
        parts: list[list[int]] = []
        truncated: list[bool] = []
        for first in range(0, len(texts), _SLICE_TEXTS):
            between()
            for encoding in self._encode_slice(texts[first : first + _SLICE_TEXTS]):
                parts.append(encoding.ids)
                truncated.append(bool(encoding.overflowing))
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        ids = np.fromiter((token for part in parts for token in part), np.int32, count=int(offsets[-1]))
        return Tokens(ids=ids, offsets=offsets, truncated=np.array(truncated, np.bool_))

    def _encode_slice(self, texts: Sequence[str]) -> list[Encoding]:
        whole = [self._prompt + text for text in texts]
        limit = self._max_tokens * _CHARACTERS_PER_TOKEN
        encodings = self._tokenizer.encode_batch_fast([beginning(text, limit) for text in whole])
        for number, text in enumerate(whole):
            # The beginning of a text was not enough to fill the window: try more.
            while len(text) > limit and not encodings[number].overflowing:
                limit *= 4
                encodings[number] = self._tokenizer.encode_batch_fast([beginning(text, limit)])[0]
            limit = self._max_tokens * _CHARACTERS_PER_TOKEN
        return list(encodings)


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


def beginning(text: str, limit: int) -> str:
    """Cut `text` at last white space before `limit` characters.

    Without white space, all of it. Its tokens are those of the whole text, for tokenizers split at white space first.
    """
    if len(text) <= limit:
        return text
    cut = max(text.rfind(space, 0, limit) for space in _SPACES)
    return text[: max(cut, 0)].rstrip(_SPACES) or text
