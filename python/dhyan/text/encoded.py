"""From pairs of texts to ids: pairs read and short enough, vocabularies, links between tokens, batches."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dhyan.errors import DataError

from .batch import Batch, pad
from .config import DataConfig
from .copies import copies_of, extended_ids, extended_tokens
from .pairs import Links, Pair, read_pairs
from .subword import MAX_PIECE, AnyVocabulary, SubwordVocabulary
from .vocabulary import END, Vocabulary, tokenize
from .words import expand_links

Examples = Sequence[Pair] | str | Path


@dataclass(frozen=True)
class Encoded:
    """Examples as ids, without the begin and end symbols that batches add, and the gold links where they are read.

    copies, own: for a model that copies, the sources as target ids, and the words that only the source has
    (`copies.copies_of`). pairs: what they were made of, where that is pairs.
    """

    source: list[list[int]]
    target: list[list[int]]
    links: list[Links | None] | None = None
    copies: list[list[int]] | None = None
    own: list[list[str]] | None = None
    pairs: Sequence[Pair] = ()

    @classmethod
    def of(
        cls,
        pairs: Sequence[Pair],
        source: AnyVocabulary,
        target: AnyVocabulary,
        *,
        links: bool = False,
        copy: bool = False,
    ) -> Encoded:
        """Encode every pair; links: keep the gold links, so that batches have an alignment. copy: for a model that
        copies."""
        encoded = cls.of_tokens(
            [source.tokenize(p.source_input) for p in pairs],
            [target.tokenize(p.target) for p in pairs],
            source,
            target,
            links=[token_links(p, source, target) for p in pairs] if links else None,
            copy=copy,
        )
        return replace(encoded, pairs=list(pairs))

    @classmethod
    def of_tokens(
        cls,
        sources: Sequence[Sequence[str]],
        targets: Sequence[Sequence[str]],
        source: AnyVocabulary,
        target: AnyVocabulary,
        *,
        links: Sequence[Links | None] | None = None,
        copy: bool = False,
    ) -> Encoded:
        """Encode texts that are tokens already; links: of these tokens. targets to be found are empty."""
        ids, gold = [source.encode(tokens) for tokens in sources], None if links is None else list(links)
        if not copy:
            return cls(ids, [target.encode(tokens) for tokens in targets], gold)
        copies, own = [], []
        for tokens in sources:
            extended, words = copies_of(tokens, target)
            copies.append(extended)
            own.append(words)
        written = [extended_ids(tokens, target, words) for tokens, words in zip(targets, own, strict=True)]
        return cls(ids, written, gold, copies, own)

    def __len__(self) -> int:
        return len(self.source)

    def sources(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """What search reads: source (B, S) with end symbols, lengths (B,), and copies (B, S) of a model that copies."""
        ids, lengths = pad([[*self.source[i], END] for i in indices])
        copies = None if self.copies is None else pad([[*self.copies[i], END] for i in indices])[0]
        return ids, lengths, copies

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at these indices, padded."""
        links = None if self.links is None else [self.links[i] for i in indices]
        copies = None if self.copies is None else [self.copies[i] for i in indices]
        return Batch.from_ids([self.source[i] for i in indices], [self.target[i] for i in indices], links, copies)

    def written(self, i: int, ids: Sequence[int], target: AnyVocabulary) -> list[str]:
        """The tokens of what a model wrote for example i."""
        return target.tokens_of(ids) if self.own is None else extended_tokens(ids, target, self.own[i])

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Source and target lengths in ids."""
        return np.array([len(s) for s in self.source]), np.array([len(t) for t in self.target])


def pairs_of(examples: Examples, data: DataConfig, what: str) -> list[Pair]:
    """The pairs, or those of a file; `what` they are goes into messages. Errors: DataError."""
    if isinstance(examples, str | Path):
        skipped, notes = list[str](), list[str]()
        pairs = read_pairs(
            examples, columns=data.columns, tags=data.tags, bad_lines=data.bad_lines, skipped=skipped, notes=notes,
            **data.counted,
        )  # fmt: skip
        for line in notes:
            print(line, file=sys.stderr)
        if skipped:
            print(f"{examples}: {len(skipped)} bad lines skipped, the first: {skipped[0]}", file=sys.stderr)
    else:
        pairs = list(examples)
    if not pairs:
        raise DataError(f"the {what} data hold no pair, expected at least one")
    return pairs


def name_of(examples: Examples, what: str) -> str:
    """How messages call the data."""
    return str(examples) if isinstance(examples, str | Path) else f"the {what} data"


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
