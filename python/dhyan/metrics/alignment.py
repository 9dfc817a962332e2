"""Alignments: links from attention weights, the Pharaoh format, and the alignment error rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from dhyan.text.pairs import Links

from .scores import check_counts

# Alignments -----------------------------------------------------------------------------------------------------------


def links_from_weights(weights: np.ndarray, sources: int, targets: int) -> list[tuple[int, int]]:
    """Arg-max links (source, target) of an alignment matrix (T, S) over sources and targets without end symbols.

    Each of the first `targets` rows links to its largest weight, the first of equals; rows of zeros, and rows whose
    largest weight lies on the end symbol (a position from `sources` on), link to nothing.
    """
    rows = np.asarray(weights)[:targets]
    if rows.ndim != 2 or len(rows) < targets or rows.shape[1] < sources:
        raise ValueError(f"links_from_weights: weights has shape {np.shape(weights)}, expected ({targets}, {sources})")
    if rows.shape[1] == 0:
        return []
    best = rows.argmax(axis=1)
    return [(int(s), t) for t, s in enumerate(best) if s < sources and rows[t, s] > 0]


def aer(predicted: Sequence[Iterable[tuple[int, int]]], gold: Sequence[Links | None]) -> float | None:
    """Alignment error rate (Och and Ney 2003) of a test set: 1 - (|A and S| + |A and P|) / (|A| + |S|).

    A: predicted links (source, target); S: sure gold links; P: all gold links, sure and possible, so S lies within P.
    The four counts are summed over the sentences. Sentences whose gold is None are left out; None if all are, or if
    there is no link at all.
    """
    check_counts(predicted, gold)
    hits = total = 0
    for links, truth in zip(predicted, gold, strict=True):
        if truth is None:
            continue
        a = set(links)
        sure, possible = {link[:2] for link in truth if link[2]}, {link[:2] for link in truth}
        hits += len(a & sure) + len(a & possible)
        total += len(a) + len(sure)
    return 1 - hits / total if total else None


def pharaoh(links: Iterable[tuple[int, int] | tuple[int, int, bool]]) -> str:
    """Links in Pharaoh form, sorted: ``0-0 1?2``; links without a mark are sure. ``data.parse_links`` reads it."""
    marked = sorted((link[0], link[1], len(link) < 3 or bool(link[2])) for link in links)
    return " ".join(f"{source}{'-' if sure else '?'}{target}" for source, target, sure in marked)
