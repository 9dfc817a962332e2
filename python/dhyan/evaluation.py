"""Measuring a translator on pairs: what `dhyan evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .data import Pair
from .metrics import Output, evaluate_report
from .search_options import SearchOptions
from .translator import Translation, Translator


def evaluate(
    translator: Translator,
    pairs: Sequence[Pair],
    *,
    beam: int | None = None,
    options: SearchOptions | None = None,
    tokenize: str = "13a",
    edges: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Translate the sources, force the references, and compare: the object that `dhyan evaluate --json` prints.

    beam, options: as Translator.translate. tokenize: sacreBLEU's tokenizer; edges: first source lengths (words) of the
    ranges of by_length, None = chosen so that each holds at least 100 pairs. The alignment error rate is that of the
    forced alignment of the references.
    A model that reads by gold links (attention "oracle") is given those of the pairs.
    Errors: ValueError for no pairs; as Translator.translate.
    """
    sources, references = [pair.source for pair in pairs], [pair.target for pair in pairs]
    links = [pair.links for pair in pairs] if translator.needs_links else None
    found = translator.translate(sources, beam, options=options, links=links)
    forced = translator.align(sources, references, links=links)
    outputs = [_output(*three) for three in zip(pairs, found, forced, strict=True)]
    words = [len(source.split()) for source in sources]
    return evaluate_report([f.text for f in found], references, outputs, words, tokenize=tokenize, edges=edges)


def _output(pair: Pair, found: Translation, forced: Translation) -> Output:
    size = len(found.source_tokens) - 1
    return Output(found.tokens, forced.tokens, found.weights, size, forced.links(), pair.links)
