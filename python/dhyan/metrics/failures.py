"""Failures of single outputs that the weights explain: omission, repetition, hallucination, wrong alignment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dhyan.text.pairs import Links

from .scores import Tokens, split_words

# Failures -------------------------------------------------------------------------------------------------------------

UNREAD = 0.2  # a source token that receives less weight than this from all output tokens together was not read
DIFFUSE = 0.3  # an output token whose largest weight on a source token is below this looked nowhere in particular
LONGEST_REPEAT = 4

FAILURES = {
    "omission": "the output has fewer tokens than the reference and lacks some of its tokens, and some source token "
    f"received less than {UNREAD} attention weight in total",
    "repetition": f"the output says 1 to {LONGEST_REPEAT} tokens twice in a row where the reference does not",
    "hallucination": "an output token is not in the reference, and its largest weight on a source token is below "
    f"{DIFFUSE}",
    "wrong_alignment": "with gold links: a reference token that has gold links points to a source token outside them; "
    f"without: an output token is not in the reference, and its largest weight, at least {DIFFUSE}, lies on a "
    "source token that an output token found in the reference points to as well",
}


@dataclass(frozen=True)
class Output:
    """What is known of one test sentence; all but hypothesis and reference may be None.

    weights: (T, S) of the hypothesis, its rows without the end symbol's; S covers source_size tokens and then the end
    symbol. forced: arg-max links of the reference (``links_from_weights``). gold: its gold links.
    """

    hypothesis: Tokens
    reference: Tokens
    weights: np.ndarray | None = None
    source_size: int | None = None
    forced: Sequence[tuple[int, int]] | None = None
    gold: Links | None = None


def failures(outputs: Iterable[Output]) -> dict[str, int]:
    """For each name of FAILURES the number of outputs that show it; one output may show several."""
    counts = dict.fromkeys(FAILURES, 0)
    for output in outputs:
        for name in failures_of(output):
            counts[name] += 1
    return counts


def failures_of(output: Output) -> list[str]:
    """The names in FAILURES, in that order, whose definition this output meets.

    Without weights, omission and hallucination go by the tokens alone and wrong_alignment needs gold links.
    """
    hypothesis, reference = split_words(output.hypothesis), split_words(output.reference)
    wrong = surplus(hypothesis, reference)
    weights = None
    if output.weights is not None:
        weights = np.asarray(output.weights)[: len(hypothesis), : output.source_size]
        if len(weights) != len(hypothesis):
            raise ValueError(
                f"failures: {len(weights)} rows of weights, expected {len(hypothesis)}, one an output token"
            )
    found = []
    lacks = len(hypothesis) < len(reference) and bool(surplus(reference, hypothesis))
    if lacks and (weights is None or bool((weights.sum(axis=0) < UNREAD).any())):
        found.append("omission")
    if repeats(hypothesis) - repeats(reference):
        found.append("repetition")
    peaks = None if weights is None else weights.max(axis=1, initial=0.0)
    if any(peaks is None or peaks[t] < DIFFUSE for t in wrong):
        found.append("hallucination")
    if _is_misaligned(output, weights, wrong):
        found.append("wrong_alignment")
    return found


def _is_misaligned(output: Output, weights: np.ndarray | None, wrong: list[int]) -> bool:
    if output.gold is not None and output.forced is not None:
        possible = {link[:2] for link in output.gold}
        linked = {target for _, target in possible}
        return any(link[1] in linked and tuple(link) not in possible for link in output.forced)
    if weights is None or weights.shape[1] == 0:
        return False
    best, peaks = weights.argmax(axis=1), weights.max(axis=1)
    read = {int(best[t]) for t in range(len(best)) if t not in wrong and peaks[t] >= DIFFUSE}
    return any(peaks[t] >= DIFFUSE and int(best[t]) in read for t in wrong)


def surplus(tokens: Tokens, others: Tokens) -> list[int]:
    """Positions of tokens that have no partner among others, each of which serves once."""
    left: dict[str, int] = {}
    for token in others:
        left[token] = left.get(token, 0) + 1
    positions = []
    for position, token in enumerate(tokens):
        left[token] = left.get(token, 0) - 1
        if left[token] < 0:
            positions.append(position)
    return positions


def repeats(tokens: Tokens) -> set[tuple[str, ...]]:
    """The runs of 1 to LONGEST_REPEAT tokens that stand twice in a row."""
    return {
        tuple(tokens[i : i + n])
        for n in range(1, LONGEST_REPEAT + 1)
        for i in range(len(tokens) - 2 * n + 1)
        if tokens[i : i + n] == tokens[i + n : i + 2 * n]
    }
