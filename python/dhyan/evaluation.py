"""Measuring a translator on pairs: what `dhyan evaluate` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .data import Pair
from .metrics import Output, evaluate_report
from .search_options import SearchOptions
from .translation import Translation
from .translator import Translator
from .vocab import normalize


def evaluate(
    translator: Translator,
    pairs: Sequence[Pair],
    *,
    beam: int | None = None,
    options: SearchOptions | None = None,
    tokenize: str = "13a",
    edges: Sequence[int] | None = None,
    replace_unknown: bool | Mapping[str, str] = False,
) -> dict[str, Any]:
    """Translate the sources, force the references, and compare: the object that `dhyan evaluate --json` prints.

    beam, options, replace_unknown: as Translator.translate. tokenize: sacreBLEU's tokenizer; edges: first source
    lengths (words) of the ranges of by_length, None = chosen so that each holds at least 100 pairs. The alignment
    error rate is that of the forced alignment of the references. Tokens and links are words where the model has pieces
    of them (`Translation.in_words`); the references get the Unicode form of the model.
    A model that reads by gold links (attention "oracle") is given those of the pairs.
    Errors: ValueError for no pairs; as Translator.translate.
    """
    sources, references = [pair.source for pair in pairs], normal_targets(translator, pairs)
    links = [pair.links for pair in pairs] if translator.needs_links else None
    found = translator.translate(sources, beam, options=options, links=links, replace_unknown=replace_unknown)
    forced = translator.align(sources, references, links=links)
    outputs = [output_of(*three) for three in zip(pairs, found, forced, strict=True)]
    words = [len(source.split()) for source in sources]
    return evaluate_report([f.text for f in found], references, outputs, words, tokenize=tokenize, edges=edges)


def normal_targets(translator: Translator, pairs: Sequence[Pair]) -> list[str]:
    """The references in the Unicode form that the model writes."""
    return [normalize(pair.target, translator.target_vocab.normalization) for pair in pairs]


def output_of(pair: Pair, found: Translation, forced: Translation) -> Output:
    """What the metrics compare: the output and its weights, the reference and its links, both in words."""
    found, forced = found.in_words(), forced.in_words()
    size = len(found.source_tokens) - 1
    return Output(found.tokens, forced.tokens, found.weights, size, forced.links(), pair.links)
