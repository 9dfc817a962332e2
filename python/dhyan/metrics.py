"""How good translations and alignments are, as fractions and scores of whole test sets.

BLEU, chrF and TER come from sacreBLEU and edit distances from rapidfuzz where installed (``pip install
'dhyan[text]'``); without sacreBLEU its scores are None, without rapidfuzz the same distances come from plain Python.
Texts are compared in Unicode normal form C.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .data import Links

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
    _check_counts(hypotheses, references)
    hits = sum(_tokens(h) == _tokens(r) for h, r in zip(hypotheses, references, strict=True))
    return hits / len(references)


def token_error_rate(hypotheses: Sequence[str | Tokens], references: Sequence[str | Tokens]) -> float:
    """Edit distance (insertions, deletions, substitutions) summed over all pairs / number of reference tokens.

    A text is split at white space; pass lists of tokens for any other level. It exceeds 1 where the hypotheses are
    much longer than the references. Errors: ValueError where there is no reference token.
    """
    _check_counts(hypotheses, references)
    pairs = [(_tokens(h), _tokens(r)) for h, r in zip(hypotheses, references, strict=True)]
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
    return _score(_bleu_metric(tokenize), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Score | None:
    """Corpus chrF2 (Popović 2015) by sacreBLEU; None without it."""
    return _score(_metric("CHRF"), hypotheses, references)


def ter(hypotheses: Sequence[str], references: Sequence[str]) -> Score | None:
    """Corpus translation edit rate (Snover et al. 2006) by sacreBLEU; None without it."""
    return _score(_metric("TER"), hypotheses, references)


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
    _check_counts(hypotheses, references)
    _check_counts(lengths, references)
    edges = length_edges(lengths) if edges is None else list(edges)
    if not edges or edges != sorted(set(edges)) or min(lengths) < edges[0]:
        raise ValueError(f"by_length: edges are {edges}, expected ascending numbers from {min(lengths)} or less on")
    metric = _bleu_metric(tokenize, effective_order=True)
    rows = []
    for first, following in zip(edges, [*edges[1:], max(*lengths, *edges) + 1], strict=True):
        chosen = [i for i, length in enumerate(lengths) if first <= length < following]
        if chosen:
            score = _score(metric, [hypotheses[i] for i in chosen], [references[i] for i in chosen])
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


def _metric(name: str, **options: Any) -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        return None
    return getattr(metrics, name)(**options)


def _bleu_metric(tokenize: str, **options: Any) -> BLEU | None:
    if tokenize not in TOKENIZERS:
        raise ValueError(f"BLEU: tokenize is {tokenize!r}, expected one of {', '.join(TOKENIZERS)}")
    # force: no advice on standard error about references that look tokenized.
    return _metric("BLEU", tokenize=tokenize, force=True, **options)


def _score(metric: Any, hypotheses: Sequence[str], references: Sequence[str]) -> Score | None:
    _check_counts(hypotheses, references)
    if metric is None:
        return None
    result = metric.corpus_score([_nfc(h) for h in hypotheses], [[_nfc(r) for r in references]])
    return Score(float(result.score), str(metric.get_signature()))


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
    _check_counts(predicted, gold)
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
    hypothesis, reference = _tokens(output.hypothesis), _tokens(output.reference)
    wrong = _surplus(hypothesis, reference)
    weights = None
    if output.weights is not None:
        weights = np.asarray(output.weights)[: len(hypothesis), : output.source_size]
        if len(weights) != len(hypothesis):
            raise ValueError(
                f"failures: {len(weights)} rows of weights, expected {len(hypothesis)}, one an output token"
            )
    found = []
    lacks = len(hypothesis) < len(reference) and bool(_surplus(reference, hypothesis))
    if lacks and (weights is None or bool((weights.sum(axis=0) < UNREAD).any())):
        found.append("omission")
    if _repeats(hypothesis) - _repeats(reference):
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


def _surplus(tokens: Tokens, others: Tokens) -> list[int]:
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


def _repeats(tokens: Tokens) -> set[tuple[str, ...]]:
    """The runs of 1 to LONGEST_REPEAT tokens that stand twice in a row."""
    return {
        tuple(tokens[i : i + n])
        for n in range(1, LONGEST_REPEAT + 1)
        for i in range(len(tokens) - 2 * n + 1)
        if tokens[i : i + n] == tokens[i + n : i + 2 * n]
    }


# The report of `evaluate` ---------------------------------------------------------------------------------------------


def evaluate_report(
    hypotheses: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[Output],
    source_words: Sequence[int],
    *,
    tokenize: str = "13a",
    edges: Sequence[int] | None = None,
    loss: float | None = None,
) -> dict[str, Any]:
    """What ``evaluate --json`` prints: hypotheses and references as texts, outputs as tokens with their weights.

    source_words: lengths of the sources in words, for by_length. loss: mean negative log-likelihood of the references
    per token in nats, for perplexity. bleu, chrf, ter, signature and each bleu of by_length are None without sacreBLEU
    (tell the user TEXT_EXTRA_MISSING); aer is None without gold links, perplexity without a loss.
    """
    _check_counts(hypotheses, references)
    _check_counts(outputs, references)
    scores = bleu(hypotheses, references, tokenize), chrf(hypotheses, references), ter(hypotheses, references)
    predicted = [output.forced or () for output in outputs]
    gold = [output.gold if output.forced is not None else None for output in outputs]
    return {
        "pairs": len(references),
        **{name: score and score.score for name, score in zip(("bleu", "chrf", "ter"), scores, strict=True)},
        "signature": scores[0] and scores[0].signature,
        "exact_match": exact_match(hypotheses, references),
        "token_error_rate": token_error_rate([o.hypothesis for o in outputs], [o.reference for o in outputs]),
        "perplexity": None if loss is None else perplexity(loss),
        "by_length": by_length(source_words, hypotheses, references, edges, tokenize),
        "aer": aer(predicted, gold),
        "failures": failures(outputs),
    }


def _check_counts(first: Sequence[object], second: Sequence[object]) -> None:
    if len(first) != len(second) or not len(first):
        raise ValueError(f"metrics: {len(first)} and {len(second)} items, expected the same number and at least one")


def _tokens(text: str | Tokens) -> list[str]:
    return _nfc(text).split() if isinstance(text, str) else [_nfc(token) for token in text]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
