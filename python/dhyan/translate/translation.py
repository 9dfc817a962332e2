"""One translation: the text, its tokens, and for each of them the weights it was read with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dhyan.metrics.alignment import links_from_weights
from dhyan.strict_json import plain
from dhyan.text.words import Words, word_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dhyan.plot.card import Card

SOURCE_END = "</s>"  # how the end symbol is shown that the encoder reads after the last source token


@dataclass(frozen=True, eq=False)
class Translation:
    """One output and what it was read from.

    text; tokens (T) of the output without its end symbol; source_tokens (S), the end symbol the encoder read included;
    score: mean log-probability per symbol in nats, the end symbol included; weights (T, S): row t sums to 1, or to less
    where a window, the monotonic normaliser or missing gold links say so; of several heads their mean.
    others: the further hypotheses asked for by nbest, best first. source_words, target_words: where tokens are pieces
    of words, which word each is of; `in_words` is the same translation between words.
    copied, p_gen (T): of a model that copies, how far each token was copied (the share of its probability, 0 to 1; of
    a word the mean of its pieces), and the probability with which the model chose to generate at that step.
    A notebook shows it as a card with its weights; `to_html` gives the same as a page.
    """

    text: str
    tokens: list[str]
    source_tokens: list[str]
    score: float
    weights: np.ndarray
    others: tuple[Translation, ...] = ()
    source_words: Words | None = None
    target_words: Words | None = None
    copied: tuple[float, ...] | None = None
    p_gen: tuple[float, ...] | None = None

    @property
    def nbest(self) -> list[Translation]:
        """All hypotheses, best first; nbest[0] is this one."""
        return [self, *self.others]

    def focus(self, t: int) -> list[tuple[str, float]]:
        """(source token, weight) for output token t, largest weight first, equals in source order."""
        if not -len(self.tokens) <= t < len(self.tokens):
            raise IndexError(f"focus: t is {t}, expected an index of {len(self.tokens)} output tokens")
        order = np.argsort(-self.weights[t], kind="stable")
        return [(self.source_tokens[s], float(self.weights[t, s])) for s in order]

    def links(self) -> list[tuple[int, int]]:
        """(source, target) of each output token's largest weight; where that is the end symbol's, no link.

        They count tokens; `in_words().links()` counts words.
        """
        return links_from_weights(self.weights, len(self.source_tokens) - 1, len(self.tokens))

    def in_words(self) -> Translation:
        """Tokens and weights of words where the model has pieces of them (`words.word_weights`), for what counts words:
        gold links, the links of `dhyan align`, error rates. Where it has none, this translation itself."""
        if self.source_words is None and self.target_words is None:
            return self
        source, target = self.source_words, self.target_words
        pieces = 0 if source is None else len(source.index)
        return Translation(
            self.text,
            self.tokens if target is None else list(target.texts),
            self.source_tokens if source is None else [*source.texts, *self.source_tokens[pieces:]],
            self.score,
            word_weights(self.weights, source, target),
            tuple(other.in_words() for other in self.others),
            copied=_means(self.copied, target),
            p_gen=_means(self.p_gen, target),
        )

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """text, score, tokens and weights (lists, six decimals): what `translate --jsonl` and `serve` write.

        Of a model that copies also copied and p_gen. A score that is not finite is None.
        """
        shown = {
            "text": self.text,
            "score": plain(self.score),
            "tokens": self.tokens,
            "weights": weight_rows(self.weights),
        }
        if self.copied is not None and self.p_gen is not None:
            shown |= {"copied": [round(c, 6) for c in self.copied], "p_gen": [round(p, 6) for p in self.p_gen]}
        return shown

    # Pictures are imported when asked for: the standard library's XML, which they use, loads its network modules.

    def plot(self, *, title: str | None = None) -> Figure:
        """The heat-map of the weights as a matplotlib Figure. ImportError without matplotlib, ValueError if empty."""
        from dhyan.plot.heatmap import heatmap

        return heatmap(self.weights, self.source_tokens, self.tokens, title=title)

    def to_html(self) -> str:
        """A page that needs no network: texts, heat-map, and a slider through the decoding steps."""
        from dhyan.plot.card import card_html, page_html

        return page_html(self.text or "empty translation", f'<main class="dhyan-page">{card_html(self.card())}</main>')

    def _repr_html_(self) -> str:
        """The same card for a notebook."""
        from dhyan.plot.card import fragment_html

        return fragment_html(self.card())

    def card(self) -> Card:
        """The evidence card of this translation, for pages and notebooks."""
        from dhyan.plot.card import Card, reading_note
        from dhyan.plot.drawing import label

        source = self.source_tokens[:-1] if self.source_tokens[-1:] == [SOURCE_END] else self.source_tokens
        texts = [("source tokens", " ".join(map(label, source))), ("output", self.text)]
        texts += [(f"{k}. hypothesis, score {other.score:.3f}", other.text) for k, other in enumerate(self.others, 2)]
        notes = [
            ("score", f"{self.score:.3f}, mean log-probability per symbol in nats"),
            ("alignment", reading_note(self.links(), self.tokens, self.source_tokens, self.weights)),
        ]
        if self.copied is not None:
            copies = [f"{t} {c:.2f}" for t, c in zip(self.tokens, self.copied, strict=True) if c > 0.5]
            notes.append(("copied source", ", ".join(copies) or "nothing"))
        return Card(
            title="Translation", tokens=self.tokens, source_tokens=self.source_tokens, weights=self.weights,
            texts=texts, notes=notes,
        )  # fmt: skip


def _means(values: tuple[float, ...] | None, words: Words | None) -> tuple[float, ...] | None:
    """The mean of each word's pieces; values as they are where there are no words."""
    if values is None or words is None:
        return values
    counts = np.bincount(words.index, minlength=len(words.texts))
    return tuple((np.bincount(words.index, values, len(words.texts)) / np.maximum(counts, 1)).tolist())


def weight_rows(weights: np.ndarray) -> list[list[float]]:
    """Weights (T, S) as JSON holds them: lists of numbers of six decimals."""
    return [[round(float(weight), 6) for weight in row] for row in weights]
