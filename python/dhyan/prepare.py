"""From pairs of texts to what a model learns from: vocabularies, pairs that are short enough, links between tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from .config import DataConfig
from .data import Links, Pair
from .errors import DataError
from .subword import MAX_PIECE, AnyVocabulary, SubwordVocabulary
from .vocab import Vocabulary, tokenize
from .words import expand_links


def vocabularies(
    pairs: Sequence[Pair], data: DataConfig, *, shared: bool = False
) -> tuple[AnyVocabulary, AnyVocabulary]:
    """Source and target vocabulary of the training pairs that are short enough; shared: one for both, as the target's.

    How many subwords a text has is known only when they are learned: they are learned from all pairs that may be short
    enough. Errors: DataError where there is none, or where they are to be shared and the levels differ; and as
    `SubwordVocabulary.train`.
    """
    if shared and data.source_level != data.target_level:
        levels = f"source_level is {data.source_level!r} and target_level {data.target_level!r}"
        raise DataError(f"tie 'all' needs one vocabulary for both sides: {levels}, expected the same")
    kept = [pair for pair in pairs if _may_be_short(pair, data)]
    if not kept:
        raise _all_long("training", data)
    if shared:
        one = build_vocabulary((text for pair in kept for text in (pair.source_input, pair.target)), data, "target")
        return one, one
    source = build_vocabulary((pair.source_input for pair in kept), data, "source")
    return source, build_vocabulary((pair.target for pair in kept), data, "target")


def short_enough(
    pairs: Sequence[Pair],
    data: DataConfig,
    made: tuple[AnyVocabulary, AnyVocabulary] | None = None,
    what: str = "training",
) -> list[Pair]:
    """Leave out the pairs longer than max_length tokens on a side, and say so.

    made: the vocabularies, without which nobody knows the subwords of a text. what: they are, for messages.
    Errors: DataError where none is left.
    """
    kept = [pair for pair in pairs if _may_be_short(pair, data) and (made is None or _is_short(pair, data, *made))]
    if not kept:
        raise _all_long(what, data)
    if len(kept) < len(pairs):
        print(f"{len(pairs) - len(kept)} {what} pairs longer than {data.max_length} tokens left out", file=sys.stderr)
    return kept


def build_vocabulary(texts: Iterable[str | Sequence[str]], data: DataConfig, side: str) -> AnyVocabulary:
    """The vocabulary of a side, source or target, as [data] says. Errors: as `SubwordVocabulary.train`."""
    is_source = side == "source"
    level = data.source_level if is_source else data.target_level
    size = data.source_vocabulary if is_source else data.target_vocabulary
    if level != "subword":
        return Vocabulary.build(
            texts, level, max_size=size or None, min_count=data.min_count, normalization=data.normalization
        )
    return SubwordVocabulary.train(
        (text for text in texts if isinstance(text, str)),
        data.subword_model,
        size=size,
        byte_fallback=data.byte_fallback,
        normalization=data.normalization,
        name=f"the {side} side of the training data",
    )


def token_links(pair: Pair, source: AnyVocabulary, target: AnyVocabulary) -> Links | None:
    """The pair's gold links as links of the tokens that the vocabularies make: of subwords, every piece of a word."""
    if pair.links is None or "subword" not in (source.level, target.level):
        return pair.links
    sides = ((source, pair.source_input), (target, pair.target))
    return expand_links(pair.links, *(vocabulary.words_of(vocabulary.tokenize(text)) for vocabulary, text in sides))


def _is_short(pair: Pair, data: DataConfig, source: AnyVocabulary, target: AnyVocabulary) -> bool:
    """Whether the subwords of the pair, which may be short, are."""
    return not any(
        vocabulary.level == "subword" and len(vocabulary.tokenize(text)) > data.max_length
        for vocabulary, text in ((source, pair.source_input), (target, pair.target))
    )


def _may_be_short(pair: Pair, data: DataConfig) -> bool:
    """Whether the pair has at most max_length tokens a side; of subwords, whether it can have."""
    for text, level in ((pair.source_input, data.source_level), (pair.target, data.target_level)):
        tokens = tokenize(text, level, data.normalization) if isinstance(text, str) else text
        if len(tokens) > data.max_length:
            return False
        if level == "subword" and sum(map(len, tokens)) > MAX_PIECE * data.max_length:
            return False
    return True


def _all_long(what: str, data: DataConfig) -> DataError:
    return DataError(f"every {what} pair is longer than max_length = {data.max_length} tokens")
