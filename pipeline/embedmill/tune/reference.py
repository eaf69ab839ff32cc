"""Complete bundles with known vectors and a length that runs."""

from __future__ import annotations

import logging

import numpy as np
from msgspec import structs

from embedmill.base.config import TextTable
from embedmill.base.errors import DeviceError, ModelError, NoRuntime, OutOfMemory, TokenizerFailed
from embedmill.base.records import Canaries, Tokens
from embedmill.batch.tokenise import Tokeniser, load_tokenizer
from embedmill.engine.devices import first_line
from embedmill.engine.sessions.canary import LEAST_COSINE, canary_cosine, reference_session, vectors_alone
from embedmill.engine.sessions.longest import LengthTrial, longest_sequence
from embedmill.engine.sessions.session import Session
from embedmill.model.bundle import Bundle, add_canaries, write_card
from embedmill.model.canaries import TEXTS
from embedmill.model.names import TOKENIZER

LOG = logging.getLogger("embedmill")


def add_reference(bundle: Bundle) -> Bundle:
    """Add canaries with CPU vectors; bound the maximum length.

    The maximum becomes the longest length that the graph takes, if that is less than stated. Raises ModelError for a
    tokenizer that cannot be read, and a graph that does not open, does not run, or gives other vectors than stated.
    """
    origin, tokens = bundle.card.origin, _canary_tokens(bundle)
    empty = Canaries(tokens=tokens, vectors=np.empty((0, bundle.card.dim), np.float32))
    try:
        session = reference_session(bundle.model(TextTable(), canaries=empty))
    except DeviceError as error:
        raise _unusable(f"{origin}: ONNX Runtime cannot open its graph", error, bundle) from error
    bundle = _limited(bundle, session, tokens)
    _check_vocabulary(bundle, session)
    tokens = _canary_tokens(bundle)
    if len({text.tobytes() for text in np.split(tokens.ids, tokens.offsets[1:-1])}) == 1:
        raise ModelError(
            f"{origin}: all texts have the same tokens, so its maximum length of {bundle.card.recipe.max_tokens} leaves"
            " no room for them, or its tokenizer knows none; correct max_seq_length"
        )
    try:
        vectors = vectors_alone(session, tokens)
    except DeviceError as error:
        cause = f"{origin}: its graph and its tokenizer do not run together"
        raise _unusable(cause, error, bundle, "; take both from the same model") from error
    canaries = Canaries(tokens=tokens, vectors=vectors)
    _check_vectors(bundle, canaries, session)
    return add_canaries(bundle, canaries)


def _check_vectors(bundle: Bundle, canaries: Canaries, session: Session) -> None:
    """Raise ModelError for unexpected vectors, and batch-dependent ones."""
    origin, dim, vectors = bundle.card.origin, bundle.card.dim, canaries.vectors
    if vectors.shape != (len(canaries.tokens.lengths), dim):
        raise ModelError(
            f"{origin}: its graph gives {list(vectors.shape[1:])} numbers, not {dim}; correct its config.json"
        )
    if not np.isfinite(vectors).all():
        raise ModelError(
            f"{origin}: its vectors hold NaN or infinity; its weights are damaged, or too large for float16"
        )
    cosine = canary_cosine(session.run, canaries, None)
    if not cosine >= LEAST_COSINE:
        raise ModelError(
            f"{origin}: a text's vector changes with the texts beside it in a batch (cosine {cosine:.5f}), so its graph"
            " does not keep texts apart, or ignores the mask; export the encoder again from its weights"
        )


def _canary_tokens(bundle: Bundle) -> Tokens:
    """Tokenise the canary texts. Raises ModelError."""
    recipe = bundle.card.recipe
    try:
        tokeniser = Tokeniser(bundle.folder / TOKENIZER, max_tokens=recipe.max_tokens, lowercase=recipe.lowercase)
    except ModelError as error:
        raise ModelError(
            f"{bundle.card.origin}: its tokenizer.json cannot be read ({error.__cause__}); it may be of a newer version"
            " of the tokenizers library, or no tokenizer"
        ) from error
    try:
        tokens = tokeniser.encode(TEXTS)
    except TokenizerFailed as error:
        raise ModelError(
            f"{bundle.card.origin}: its tokenizer fails on a test text ({error.__cause__}); correct it"
        ) from error
    if tokens.lengths.max() > recipe.max_tokens:
        raise ModelError(
            f"{bundle.card.origin}: its maximum length is {recipe.max_tokens}, less than the special tokens of a text;"
            " correct max_seq_length in its sentence_bert_config.json"
        )
    return tokens


def _limited(bundle: Bundle, session: Session, tokens: Tokens) -> Bundle:
    """Bound the maximum length by trials of the graph."""
    card, stated = bundle.card, bundle.card.recipe.max_tokens
    # The shortest canary: its tokens are those that every text has.
    trial = LengthTrial(session, tokens.ids[: tokens.offsets[1]])
    longest = longest_sequence(trial, stated)
    if trial.untried:
        LOG.warning(
            "%s: texts of %d tokens and more were not tried, for want of memory or time", card.name, trial.untried
        )
    # Of a graph that takes no length at all the canaries tell the reason.
    if longest in (0, stated):
        return bundle
    LOG.warning("%s: its graph takes %d tokens, not the %d stated; texts are cut there", card.name, longest, stated)
    recipe = structs.replace(card.recipe, max_tokens=longest)
    return write_card(bundle.folder, structs.replace(card, recipe=recipe))


def _check_vocabulary(bundle: Bundle, session: Session) -> None:
    """Warn of tokens that the graph has no row for."""
    words = load_tokenizer(bundle.folder / TOKENIZER).get_vocab()
    word, last = max(words.items(), key=lambda item: item[1], default=("", 0))
    if not LengthTrial(session, np.array([last], np.int32))(1):
        LOG.warning(
            "%s: its graph does not know every token of its tokenizer (up to %d, %r); a text with such a token"
            " ends a run, so take both from the same model",
            bundle.card.name,
            last,
            word,
        )


def _unusable(cause: str, error: DeviceError, bundle: Bundle, remedy: str = "") -> Exception:
    """Make a ModelError, unless the machine is at fault."""
    if isinstance(error, NoRuntime | OutOfMemory):
        return error
    # A session adds words on runs, which do not help here.
    words = first_line(error.__cause__) if isinstance(error.__cause__, Exception) else str(error)
    # The bundle's folder is a temporary one.
    return ModelError(f"{cause}: {words.replace(str(bundle.folder / '_')[:-1], '')}{remedy}")
