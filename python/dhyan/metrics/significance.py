"""Is one output better than another on the same sentences, or could the difference be chance of the test set?

Paired bootstrap resampling (Koehn 2004): draw as many sentences as the test has, with replacement, score both outputs
on the drawn ones, and repeat. BLEU, chrF and TER are resampled by sacreBLEU where it is installed, exact match and
token error rate here, by the same rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .failures import Output
from .measures import BLEU, MEASURES, FromSacreBLEU, Outcome, Share
from .scores import nfc

SAMPLES = 1000
FEWEST_SAMPLES = 100
MOST_DRAWN = 5_000_000  # sentences of all samples together: sacreBLEU holds some 100 bytes for each of them at once
SEED = 12345  # sacreBLEU's own, unless SACREBLEU_SEED is set

Comparison = dict[str, float]


def paired_bootstrap(
    hypotheses: Sequence[str],
    others: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[Output],
    other_outputs: Sequence[Output],
    *,
    tokenize: str = "13a",
    samples: int | None = None,
) -> dict[str, Any]:
    """Two systems' outputs of the same sentences, as texts and as tokens: {"samples", "signature", "measures"}.

    measures: for bleu, chrf, ter (not without sacreBLEU), exact_match and token_error_rate (not where the two outputs
    cut the references into different tokens) {"score", "interval", "against", "against_interval", "p_value"}: the
    scores of the first and the second system, each with half the width of the middle 95 % of its resampled scores, and
    p_value = (1 + n) / (1 + samples), n the samples in which |difference| - its mean exceeds the measured |difference|:
    how probable a difference as large as this is between systems that do not differ; 1 where none is measured.
    signature: of BLEU's test. samples: None is SAMPLES, fewer where the test has more than 5,000 sentences.
    Errors: ValueError for unequal counts or none, and for samples < 1.
    """
    counts = [len(one) for one in (hypotheses, others, references, outputs, other_outputs)]
    if min(counts) != max(counts) or not counts[0]:
        raise ValueError(f"paired_bootstrap: {counts} items, expected the same number of each and at least one")
    if samples is None:
        samples = max(FEWEST_SAMPLES, min(SAMPLES, MOST_DRAWN // counts[0]))
    if samples < 1:
        raise ValueError(f"paired_bootstrap: samples is {samples}, expected at least 1")
    measures, signature = _by_sacrebleu(hypotheses, others, references, tokenize, samples)
    tests = Outcome(hypotheses, references, outputs), Outcome(others, references, other_outputs)
    same = all(list(a.reference) == list(b.reference) for a, b in zip(outputs, other_outputs, strict=True))
    for measure in MEASURES:
        share = measure.figure
        if isinstance(share, Share) and (same or not share.of_tokens):
            first, second = (np.array(share.of_sentences(test)) for test in tests)
            measures[measure.key] = resampled(first, second, lambda s, _: s[0] / max(s[1], 1), samples)
    return {"samples": samples, "signature": signature, "measures": measures}


def resampled(
    first: np.ndarray, second: np.ndarray, score: Callable[[np.ndarray, int], float], samples: int
) -> Comparison:
    """Two systems compared by what is known of each sentence, (N, k), and the score of sums (k,) over N sentences."""
    N = len(first)
    rng = np.random.default_rng(SEED)
    drawn = np.empty((samples, 2))
    for row in drawn:
        chosen = rng.integers(0, N, N)
        row[:] = [score(known[chosen].sum(0), N) for known in (first, second)]
    measured = [float(score(known.sum(0), N)) for known in (first, second)]
    away = np.abs(drawn[:, 0] - drawn[:, 1])
    above = int((away - away.mean() > abs(measured[0] - measured[1])).sum())
    return _comparison(measured, [_half_width(drawn[:, 0]), _half_width(drawn[:, 1])], (above + 1) / (samples + 1))


def _half_width(scores: np.ndarray) -> float:
    """Half the width of the middle 95 %."""
    ordered, out = np.sort(scores), len(scores) // 40
    return float(ordered[len(scores) - 1 - out] - ordered[out]) / 2


def _comparison(scores: Sequence[float], intervals: Sequence[float], p_value: float) -> Comparison:
    # By the rule alone, a system against itself would differ with certainty: no sample's difference exceeds 0.
    return {
        "score": scores[0], "interval": intervals[0], "against": scores[1], "against_interval": intervals[1],
        "p_value": p_value if scores[0] != scores[1] else 1.0,
    }  # fmt: skip


def _by_sacrebleu(
    hypotheses: Sequence[str], others: Sequence[str], references: Sequence[str], tokenize: str, samples: int
) -> tuple[dict[str, Comparison], str | None]:
    metrics = {m.key: m.figure.metric(tokenize) for m in MEASURES if isinstance(m.figure, FromSacreBLEU)}
    if metrics[BLEU.key] is None:
        return {}, None
    from sacrebleu.significance import PairedTest

    # The second system is sacreBLEU's baseline; two systems of one name would be one.
    named: list[tuple[str, Sequence[str]]] = [
        ("against", list(map(nfc, others))),
        ("system", list(map(nfc, hypotheses))),
    ]
    test = PairedTest(named, metrics, [list(map(nfc, references))], test_type="bs", n_samples=samples)
    answer: Any = test()
    signatures, found = answer
    # The first column holds the systems' names, the others the scores in the order of the metrics.
    columns = [name for name in found if name != "System"]
    measures = {}
    for key, name in zip(metrics, columns, strict=True):
        against, system = found[name]
        scores, intervals = [float(system.score), float(against.score)], [float(system.ci), float(against.ci)]
        measures[key] = _comparison(scores, intervals, float(system.p_value))
    return measures, str(signatures[columns[list(metrics).index(BLEU.key)]])
