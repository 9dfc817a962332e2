"""The pairs that training and validation learn from: read, checked, and as ids."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .batch import Batch
from .config import DataConfig, ModelConfig, TrainConfig
from .copying import copies_of, extended_ids, extended_tokens
from .data import Links, Pair, check_links, read_pairs
from .errors import DataError
from .prepare import token_links
from .subword import AnyVocabulary

Examples = Sequence[Pair] | str | Path


@dataclass(frozen=True)
class Encoded:
    """Examples as ids, without the begin and end symbols that Batch adds, and the gold links where they are read.

    copies, own: of a model that copies, the sources as target ids, and the words that only the source has (`copying`).
    """

    pairs: list[Pair]
    source: list[list[int]]
    target: list[list[int]]
    links: list[Links | None] | None = None
    copies: list[list[int]] | None = None
    own: list[list[str]] | None = None

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
        made = cls(
            list(pairs),
            [source.encode(p.source_input) for p in pairs],
            [target.encode(p.target) for p in pairs],
            [token_links(p, source, target) for p in pairs] if links else None,
        )
        return made._extended(source, target) if copy else made

    def _extended(self, source: AnyVocabulary, target: AnyVocabulary) -> Encoded:
        found = [copies_of(source.tokenize(p.source_input), target) for p in self.pairs]
        ids = [
            extended_ids(target.tokenize(p.target), target, own) for p, (_, own) in zip(self.pairs, found, strict=True)
        ]
        return replace(self, target=ids, copies=[copies for copies, _ in found], own=[own for _, own in found])

    def __len__(self) -> int:
        return len(self.pairs)

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
        skipped: list[str] = []
        pairs = read_pairs(examples, columns=data.columns, bad_lines=data.bad_lines, skipped=skipped, **data.counted)
        if skipped:
            print(f"{examples}: {len(skipped)} bad lines skipped, the first: {skipped[0]}", file=sys.stderr)
    else:
        pairs = list(examples)
    if not pairs:
        raise DataError(f"the {what} data hold no pair, expected at least one")
    return pairs


def check_gold(
    config: ModelConfig, options: TrainConfig, data: DataConfig, parts: Sequence[tuple[str, Sequence[Pair]]]
) -> None:
    """DataError unless the gold links are there that training reads; parts: (name, pairs) of training, validation.

    And where the tokens of the source are none that a target could copy.
    """
    levels = data.source_level, data.target_level
    if config.copy and "subword" in levels and levels[0] != levels[1]:
        raise DataError(f"copy with levels {levels[0]!r} and {levels[1]!r}, expected the same: subwords are no words")
    if config.attention == "oracle" and data.target_level == "subword":
        # Words are linked, and which word the next subword will belong to is not known before it is written.
        raise DataError("attention 'oracle' with target level 'subword', expected char or word: it reads by links")
    for number, (name, pairs) in enumerate(parts):
        if config.attention == "oracle":
            check_links(pairs, name, "attention 'oracle' reads by them", **data.counted)
        elif options.guided and number == 0:
            check_links(pairs, name, f"guided = {options.guided} learns from them", **data.counted, every=False)


def name_of(examples: Examples, what: str) -> str:
    """How messages call the data."""
    return str(examples) if isinstance(examples, str | Path) else f"the {what} data"


def positions_of(config: ModelConfig, vocabulary: AnyVocabulary, pairs: Sequence[Pair]) -> int:
    """max_source; for the scoring "location" at least the longest source with its end symbol, which 0 stands for."""
    if config.attention != "location":
        return config.max_source
    lengths = [len(vocabulary.tokenize(p.source_input)) + 1 for p in pairs]
    if 0 < config.max_source < max(lengths):
        pair = pairs[lengths.index(max(lengths))]
        raise DataError(
            f"the source {pair.source[:60]!r} has {max(lengths)} positions with its end symbol, expected at most "
            f"max_source = {config.max_source} for attention 'location'"
        )
    return config.max_source or max(lengths)
