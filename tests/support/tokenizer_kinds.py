"""Small trained tokenizers of every kind that embedding models have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordLevel, WordPiece
from tokenizers.processors import RobertaProcessing, TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordLevelTrainer, WordPieceTrainer

_SPECIALS = ["<s>", "</s>", "<unk>"]
_AROUND = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
_CORPUS = [
    "The ferry leaves the island at seven; nobody told her, and the river rises.",
    "Ein Sprachmodell zerlegt Wörter, un modèle découpe des mots naïfs: ﬁn, ½, İstanbul.",
    "東京の川は静かに流れる。 ข้าวสวยและน้ำ  def f(x):\n    return x + 1\n\n\n# ======== ========",
    "aGVsbG8gd29ybGQ= QmFzZTY0IGlzIGxvbmc= 👩‍👩‍👧 🙂🙂 12,345.678",
] * 8


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(unk_token="<unk>", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(_CORPUS, WordPieceTrainer(vocab_size=300, special_tokens=_SPECIALS))
    tokenizer.post_processor = _AROUND
    return tokenizer


def _byte_level(*, add_prefix_space: bool, trim_offsets: bool) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, trim_offsets=trim_offsets)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=_SPECIALS, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = RobertaProcessing(
        ("</s>", 1), ("<s>", 0), trim_offsets=trim_offsets, add_prefix_space=add_prefix_space
    )
    return tokenizer


def _byte_fallback() -> Tokenizer:
    """As Llama's and Gemma's: the whole text is one word, with a space put before it."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    words = [word for text in _CORPUS for word in text.split()]
    tokenizer.train_from_iterator(words, BpeTrainer(vocab_size=500, special_tokens=[*_SPECIALS, *bytes_]))
    tokenizer.post_processor = _AROUND
    return tokenizer


def _unigram() -> Tokenizer:
    """As XLM-RoBERTa's: compatibility forms are spelled out, which makes one character many."""
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = UnigramTrainer(vocab_size=200, special_tokens=_SPECIALS, unk_token="<unk>")
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = _AROUND
    return tokenizer


def _word_level() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(_CORPUS, WordLevelTrainer(special_tokens=_SPECIALS))
    tokenizer.post_processor = _AROUND
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": _word_piece,
    "byte-level BPE": lambda: _byte_level(add_prefix_space=False, trim_offsets=True),
    "byte-level BPE with the spaces": lambda: _byte_level(add_prefix_space=True, trim_offsets=False),
    "BPE with byte fallback": _byte_fallback,
    "Unigram": _unigram,
    "WordLevel": _word_level,
}


def write_tokenizers(folder: Path) -> dict[str, Path]:
    """Train each kind and write its file; the paths by kind."""
    paths = {kind: folder / f"{kind}.json" for kind in KINDS}
    for kind, path in paths.items():
        KINDS[kind]().save(str(path))
    return paths
