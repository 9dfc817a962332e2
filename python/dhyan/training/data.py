"""Checks of training pairs: gold links where they are asked for, and sources that are not too long."""

from __future__ import annotations

from collections.abc import Sequence

from dhyan.errors import DataError
from dhyan.model.config import ModelConfig
from dhyan.text.config import DataConfig
from dhyan.text.pairs import Pair, check_links
from dhyan.text.subword import AnyVocabulary

from .config import TrainConfig


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
