"""The pairs that training and validation learn from: read, checked, shortened, and as ids."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .batch import Batch
from .config import DataConfig, ModelConfig, TrainConfig
from .data import Links, Pair, check_links, read_pairs
from .errors import DataError
from .vocab import Vocabulary, tokenize

Examples = Sequence[Pair] | str | Path


@dataclass(frozen=True)
class Encoded:
    """Examples as ids, without the begin and end symbols that Batch adds, and the gold links where they are read."""

    pairs: list[Pair]
    source: list[list[int]]
    target: list[list[int]]
    links: list[Links | None] | None = None

    @classmethod
    def of(cls, pairs: Sequence[Pair], source: Vocabulary, target: Vocabulary, *, links: bool = False) -> Encoded:
        """Encode every pair; links: keep the gold links, so that batches have an alignment."""
        return cls(
            list(pairs),
            [source.encode(p.source_input) for p in pairs],
            [target.encode(p.target) for p in pairs],
            [p.links for p in pairs] if links else None,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """The examples at these indices, padded."""
        links = None if self.links is None else [self.links[i] for i in indices]
        return Batch.from_ids([self.source[i] for i in indices], [self.target[i] for i in indices], links)

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Source and target lengths in ids."""
        return np.array([len(s) for s in self.source]), np.array([len(t) for t in self.target])


def vocabularies(pairs: Sequence[Pair], data: DataConfig, *, shared: bool = False) -> tuple[Vocabulary, Vocabulary]:
    """Source and target vocabulary of the training pairs; shared: one for both sides, bounded by target_vocabulary.

    Errors: DataError where they are to be shared and the levels differ.
    """
    if shared:
        if data.source_level != data.target_level:
            levels = f"source_level is {data.source_level!r} and target_level {data.target_level!r}"
            raise DataError(f"tie 'all' needs one vocabulary for both sides: {levels}, expected the same")
        both = (text for p in pairs for text in (p.source_input, p.target))
        one = Vocabulary.build(
            both, data.target_level, max_size=data.target_vocabulary or None, min_count=data.min_count
        )
        return one, one
    source = Vocabulary.build(
        (p.source_input for p in pairs),
        data.source_level,
        max_size=data.source_vocabulary or None,
        min_count=data.min_count,
    )
    target = Vocabulary.build(
        (p.target for p in pairs),
        data.target_level,
        max_size=data.target_vocabulary or None,
        min_count=data.min_count,
    )
    return source, target


def pairs_of(examples: Examples, data: DataConfig, what: str) -> list[Pair]:
    """The pairs, or those of a file; `what` they are goes into messages. Errors: DataError."""
    if isinstance(examples, str | Path):
        skipped: list[str] = []
        levels = (data.source_level, data.target_level)
        pairs = read_pairs(examples, columns=data.columns, bad_lines=data.bad_lines, skipped=skipped, levels=levels)
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
    """DataError unless the gold links are there that training reads; parts: (name, pairs) of training, validation."""
    levels = (data.source_level, data.target_level)
    for number, (name, pairs) in enumerate(parts):
        if config.attention == "oracle":
            check_links(pairs, name, "attention 'oracle' reads by them", levels=levels)
        elif options.guided and number == 0:
            check_links(pairs, name, f"guided = {options.guided} learns from them", levels=levels, every=False)


def name_of(examples: Examples, what: str) -> str:
    """How messages call the data."""
    return str(examples) if isinstance(examples, str | Path) else f"the {what} data"


def positions_of(config: ModelConfig, vocabulary: Vocabulary, pairs: Sequence[Pair]) -> int:
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


def short_enough(pairs: list[Pair], data: DataConfig) -> list[Pair]:
    """Leave out what is longer than max_length tokens, and say so."""

    def length(text: Any, level: str) -> int:
        return len(tokenize(text, level)) if isinstance(text, str) else len(text)

    kept = [
        p
        for p in pairs
        if length(p.source_input, data.source_level) <= data.max_length
        and length(p.target, data.target_level) <= data.max_length
    ]
    if len(kept) < len(pairs):
        print(f"{len(pairs) - len(kept)} pairs longer than {data.max_length} tokens left out", file=sys.stderr)
    if not kept:
        raise DataError(f"every training pair is longer than max_length = {data.max_length} tokens")
    return kept
