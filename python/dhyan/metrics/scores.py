"""How good translations are, as fractions and scores of whole test sets."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

TEXT_EXTRA_MISSING = "BLEU, chrF and TER need sacreBLEU: pip install 'dhyan[text]'"
# sacreBLEU's tokenizers that need no download and no further package.
TOKENIZERS = ("13a", "intl", "char", "zh", "none")

Tokens = Sequence[str]


class Score(NamedTuple):
    """A corpus score (0 to 100, TER may exceed it) and sacreBLEU's signature, which says how it was computed."""

    score: float
    signature: str


def perplexity(loss: float) -> float:
    """exp(loss), loss being the mean negative log-likelihood a token in nats; inf where that overflows."""
    return math.exp(loss) if loss < 709 else math.inf


# Whole texts and tokens -----------------------------------------------------------------------------------------------


def exact_match(hypotheses: Sequence[str | Tokens], references: Sequence[str | Tokens]) -> float:
    """The fraction (0 to 1) of hypotheses that equal their reference: word for word if texts, else token for token.

    Errors: ValueError for no pairs or unequal counts, as in every function of this module.
    """
    check_counts(hypotheses, references)
    hits = sum(split_words(h) == split_words(r) for h, r in zip(hypotheses, references, strict=True))
    return hits / len(references)


def token_error_rate(hypotheses: Sequence[str | Tokens], references: Sequence[str | Tokens]) -> float:
    """Edit distance (insertions, deletions, substitutions) summed over all pairs / number of reference tokens.

    A text is split at white space; pass lists of tokens for any other level. It exceeds 1 where the hypotheses are
    much longer than the references. Errors: ValueError where there is no reference token.
    """
    check_counts(hypotheses, references)
    pairs = [(split_words(h), split_words(r)) for h, r in zip(hypotheses, references, strict=True)]
    total = sum(len(reference) for _, reference in pairs)
    if total == 0:
        raise ValueError("token_error_rate: the references hold no token")
    return sum(edit_distance(hypothesis, reference) for hypothesis, reference in pairs) / total


def edit_distance(a: Tokens, b: Tokens) -> int:
    """Levenshtein's distance: the fewest insertions, deletions and substitutions that turn a into b."""
    # Numbers, since rapidfuzz compares words by their hashes.
    numbers: dict[str, int] = {}
    ids_a, ids_b = ([numbers.setdefault(token, len(numbers)) for token in tokens] for tokens in (a, b))
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        return _edit_distance_plain(ids_a, ids_b)
    return int(Levenshtein.distance(ids_a, ids_b))


def _edit_distance_plain(a: Sequence[int], b: Sequence[int]) -> int:
    row = list(range(len(b) + 1))  # row[j]: distance of the first i of a from the first j of b
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


# sacreBLEU ------------------------------------------------------------------------------------------------------------


def bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> Score | None:
    """Corpus BLEU (Papineni et al. 2002) by sacreBLEU (Post 2018); None without it.

    Errors: ValueError for a tokenize outside TOKENIZERS.
    """
    return corpus_score(bleu_metric(tokenize), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score | None:
    """Corpus chrF2 (Popović 2015) by sacreBLEU; None without it."""
    return corpus_score(sacrebleu_metric("CHRF"), hypotheses, references)


def ter(hypotheses: Sequence[str], references: Sequence[str]) -> Score | None:
    """Corpus translation edit rate (Snover et al. 2006) by sacreBLEU; None without it."""
    return corpus_score(sacrebleu_metric("TER"), hypotheses, references)


def by_length(
    lengths: Sequence[int],
    hypotheses: Sequence[str],
    references: Sequence[str],
    edges: Sequence[int] | None = None,
    tokenize: str = "13a",
) -> list[dict[str, Any]]:
    """Corpus BLEU of the pairs in each range of source lengths, with effective order, as in Bahdanau et al. 2014.

    edges: the first length of each range, ascending; the last range is open. None: ``length_edges(lengths)``.
    Returns {"from", "to", "pairs", "bleu"} for every range with a pair, both bounds inclusive, the last ``to`` being
    the greatest length seen. Errors: ValueError for lengths below the first edge.
    """
    check_counts(hypotheses, references)
    check_counts(lengths, references)
    edges = length_edges(lengths) if edges is None else list(edges)
    if not edges or edges != sorted(set(edges)) or min(lengths) < edges[0]:
        raise ValueError(f"by_length: edges are {edges}, expected ascending numbers from {min(lengths)} or less on")
    metric = bleu_metric(tokenize, effective_order=True)
    rows = []
    for first, following in zip(edges, [*edges[1:], max(*lengths, *edges) + 1], strict=True):
        chosen = [i for i, length in enumerate(lengths) if first <= length < following]
        if chosen:
            score = corpus_score(metric, [hypotheses[i] for i in chosen], [references[i] for i in chosen])
            row = {"from": first, "to": following - 1, "pairs": len(chosen), "bleu": score.score if score else None}
            rows.append(row)
    return rows


def length_edges(lengths: Sequence[int], *, least: int = 100, most_ranges: int = 8) -> list[int]:
    """Edges for by_length: as many ranges as hold at least `least` pairs each, at most most_ranges of like counts."""
    if not lengths:
        raise ValueError("length_edges: no lengths, expected at least one")
    wanted = max(least, math.ceil(len(lengths) / most_ranges))
    values, counts = np.unique(np.asarray(lengths), return_counts=True)
    edges, held, left = [int(values[0])], 0, len(lengths)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        if held >= wanted and left >= least:
            edges.append(value)
            held = 0
        held += count
        left -= count
    return edges


def sacrebleu_metric(name: str, **options: Any) -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        return None
    return getattr(metrics, name)(**options)


def bleu_metric(tokenize: str, **options: Any) -> BLEU | None:
    if tokenize not in TOKENIZERS:
        raise ValueError(f"BLEU: tokenize is {tokenize!r}, expected one of {', '.join(TOKENIZERS)}")
    # force: no advice on standard error about references that look tokenized.
    return sacrebleu_metric("BLEU", tokenize=tokenize, force=True, **options)


def corpus_score(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Score | None:
    """The score of a metric of sacreBLEU, on texts in NFC; None without a metric."""
    check_counts(hypotheses, references)
    if metric is None:
        return None
    result = metric.corpus_score([nfc(h) for h in hypotheses], [[nfc(r) for r in references]])
    return Score(float(result.score), str(metric.get_signature()))


def check_counts(first: Sequence[object], second: Sequence[object]) -> None:
    if len(first) != len(second) or not len(first):
        raise ValueError(f"metrics: {len(first)} and {len(second)} items, expected the same number and at least one")


def split_words(text: str | Tokens) -> list[str]:
    return nfc(text).split() if isinstance(text, str) else [nfc(token) for token in text]


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
