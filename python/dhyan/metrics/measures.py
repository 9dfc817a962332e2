"""The measures of a test: of each its key, name, unit, digits and direction, and how it is computed, in one place.

All that shows or compares figures goes through MEASURES: `dhyan evaluate`, the report, the demo, the lines printed
while a model trains, and the paired bootstrap. A new measure is one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .alignment import aer
from .failures import Output
from .scores import (
    Score,
    Tokens,
    bleu_metric,
    corpus_score,
    edit_distance,
    exact_match,
    perplexity,
    sacrebleu_metric,
    split_words,
    token_error_rate,
)


@dataclass(frozen=True)
class Outcome:
    """What measures look at: outputs and references of one test, as texts and as tokens with what is known of them.

    loss: mean negative log-likelihood of the references per token in nats, None where it is unknown.
    """

    hypotheses: Sequence[str]
    references: Sequence[str]
    outputs: Sequence[Output]
    tokenize: str = "13a"
    loss: float | None = None

    def pairs(self, of_tokens: bool) -> list[tuple[Tokens, Tokens]]:
        """(hypothesis, reference) of each sentence: the tokens of the model, or the words of the texts."""
        if of_tokens:
            return [(split_words(one.hypothesis), split_words(one.reference)) for one in self.outputs]
        return [(split_words(h), split_words(r)) for h, r in zip(self.hypotheses, self.references, strict=True)]


@dataclass(frozen=True)
class Share:
    """A fraction of counts summed over the sentences, so that it can be resampled.

    whole: (hypotheses, references) -> the fraction; counts: (hypothesis, reference) -> numerator and denominator of one
    sentence; of_tokens: it looks at tokens, not texts.
    """

    whole: Callable[[Sequence[Tokens], Sequence[Tokens]], float]
    counts: Callable[[Tokens, Tokens], tuple[int, int]]
    of_tokens: bool

    def of_sentences(self, test: Outcome) -> list[tuple[int, int]]:
        """Numerator and denominator of every sentence."""
        return [self.counts(*pair) for pair in test.pairs(self.of_tokens)]

    def __call__(self, test: Outcome) -> float:
        hypotheses, references = zip(*test.pairs(self.of_tokens), strict=True)
        return self.whole(hypotheses, references)


@dataclass(frozen=True)
class FromSacreBLEU:
    """A corpus score of sacreBLEU; None where that is not installed. metric: tokenizer -> its metric."""

    metric: Callable[[str], Any]

    def scored(self, test: Outcome) -> Score | None:
        """The score with its signature."""
        return corpus_score(self.metric(test.tokenize), test.hypotheses, test.references)

    def __call__(self, test: Outcome) -> float | None:
        found = self.scored(test)
        return found and found.score


@dataclass(frozen=True)
class Measure:
    """One measure. key: its name in JSON and log files; unit: "%" for a fraction shown as a percentage.

    figure: an Outcome -> the value, None where it is unknown. short: its name where there is little room.
    """

    key: str
    name: str
    unit: Literal["", "%"]
    digits: int
    better: Literal["higher", "lower"]
    figure: Callable[[Outcome], float | None] = field(repr=False)
    short: str = ""

    @property
    def heading(self) -> str:
        """The name of a narrow column."""
        return self.short or self.name

    def number(self, value: float, fewer: int = 0) -> str:
        """A value with its digits (or so many fewer), of a fraction the percentage, without the unit: ``98.50``."""
        return f"{100 * value if self.unit == '%' else value:.{self.digits - fewer}f}"

    def text(self, value: float | None, missing: str = "–", fewer: int = 0) -> str:
        """A value as it is shown alone: ``98.50 %``."""
        return missing if value is None else f"{self.number(value, fewer)} {self.unit}".rstrip()


def _exact(hypothesis: Tokens, reference: Tokens) -> tuple[int, int]:
    return int(hypothesis == reference), 1


def _edits(hypothesis: Tokens, reference: Tokens) -> tuple[int, int]:
    return edit_distance(hypothesis, reference), len(reference)


def _aer(test: Outcome) -> float | None:
    gold = [output.gold if output.forced is not None else None for output in test.outputs]
    return aer([output.forced or () for output in test.outputs], gold)


BLEU = Measure("bleu", "BLEU", "", 2, "higher", FromSacreBLEU(bleu_metric))
EXACT_MATCH = Measure(
    "exact_match", "exact match", "%", 2, "higher", Share(exact_match, _exact, of_tokens=False), short="exact"
)
TOKEN_ERROR_RATE = Measure(
    "token_error_rate",
    "token error rate",
    "%",
    2,
    "lower",
    Share(token_error_rate, _edits, of_tokens=True),
    short="errors",
)
AER = Measure("aer", "AER", "", 4, "lower", _aer)
MEASURES = (
    BLEU,
    Measure("chrf", "chrF", "", 2, "higher", FromSacreBLEU(lambda _: sacrebleu_metric("CHRF"))),
    Measure("ter", "TER", "", 2, "lower", FromSacreBLEU(lambda _: sacrebleu_metric("TER"))),
    EXACT_MATCH,
    TOKEN_ERROR_RATE,
    Measure("perplexity", "perplexity", "", 3, "lower", lambda t: None if t.loss is None else perplexity(t.loss)),
    AER,
)
