"""From text to text with a trained model, keeping for every output token the weights it was read with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from .batch import Batch, pad
from .data import two_column_tokens
from .errors import DataError
from .folder import load_folder
from .metrics import links_from_weights
from .search import Hypothesis, beam_search
from .vocab import END, Vocabulary

SOURCE_END = "</s>"  # how the end symbol is shown that the encoder reads after the last source token
BATCH_SENTENCES, BATCH_POSITIONS = 64, 4096


@dataclass(frozen=True, eq=False)
class Translation:
    """One output and what it was read from.

    text; tokens (T) of the output without its end symbol; source_tokens (S), the end symbol the encoder read included;
    score: mean log-probability per symbol in nats, the end symbol included; weights (T, S): row t sums to 1;
    others: the further hypotheses asked for by nbest, best first.
    """

    text: str
    tokens: list[str]
    source_tokens: list[str]
    score: float
    weights: np.ndarray
    others: tuple[Translation, ...] = ()

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
        """(source, target) of each output token's largest weight; where that is the end symbol's, no link."""
        return links_from_weights(self.weights, len(self.source_tokens) - 1, len(self.tokens))

    def __str__(self) -> str:
        return self.text


class Translator:
    """A model with its two vocabularies.

    two_columns: a source is `first TAB second`, as in training with `--columns 1,2:3`. max_source: most tokens a
    source may have; longer ones are refused, since time and memory grow with source times target length.
    """

    def __init__(
        self,
        model: Any,
        source_vocab: Vocabulary,
        target_vocab: Vocabulary,
        *,
        two_columns: bool = False,
        max_source: int = 500,
    ) -> None:
        config = model.config
        if config.source != "tokens":
            raise ValueError(f"Translator: the model's source is {config.source!r}, expected 'tokens': it has no text")
        for name, vocab, size in (
            ("source", source_vocab, config.source_size),
            ("target", target_vocab, config.target_size),
        ):
            if len(vocab) != size:
                raise ValueError(
                    f"Translator: {name}_vocab has {len(vocab)} ids, expected the model's {name}_size {size}"
                )
        self.model, self.source_vocab, self.target_vocab = model, source_vocab, target_vocab
        self.two_columns, self.max_source = two_columns, max_source

    @overload
    def translate(self, text: str, beam: int = 5, max_length: int | None = None, nbest: int = 1) -> Translation: ...

    @overload
    def translate(
        self, text: list[str] | tuple[str, ...], beam: int = 5, max_length: int | None = None, nbest: int = 1
    ) -> list[Translation]: ...

    def translate(
        self, text: str | list[str] | tuple[str, ...], beam: int = 5, max_length: int | None = None, nbest: int = 1
    ) -> Translation | list[Translation]:
        """Translate one text, or a list of texts into a list in the same order.

        max_length: most decoder steps, of which the end symbol takes one; None = twice the source tokens and 10 (eight
        times from words to characters).
        A text of white space alone translates to the empty text with score 0; unknown words enter as one unknown
        symbol each and keep their own form in source_tokens. A result does not depend on the other texts.

        Errors: TypeError for what is not text; ValueError for beam < 1 and nbest outside 1..beam; DataError, a
        ValueError too, for a text of more than max_source tokens or without the two columns the model wants.
        """
        texts = [text] if isinstance(text, str) else list(text)
        sources = [self._numbered("translate", i, one) for i, one in enumerate(texts)]
        if beam < 1 or not 1 <= nbest <= beam:
            raise ValueError(f"translate: beam is {beam} and nbest {nbest}, expected 1 <= nbest <= beam")
        if max_length is not None and max_length < 1:
            raise ValueError(f"translate: max_length is {max_length}, expected at least 1")
        results = [Translation("", [], [SOURCE_END], 0.0, np.zeros((0, 1), self.model.dtype)) for _ in texts]
        for indices in _batches([len(tokens) for tokens in sources]):
            ids, lengths = pad([[*self.source_vocab.encode(sources[i]), END] for i in indices])
            limits = self._limits(lengths) if max_length is None else max_length
            found = beam_search(self.model, ids, lengths, beam=beam, max_length=limits, nbest=nbest)
            for i, hypotheses in zip(indices, found, strict=True):
                results[i] = self._translation([*sources[i], SOURCE_END], hypotheses)
        return results[0] if isinstance(text, str) else results

    def align(self, sources: Sequence[str], targets: Sequence[str]) -> list[Translation]:
        """How the model reads the sources when it is made to write the targets (teacher forcing).

        The result's weights and links() are the alignment, its score the mean log-probability of the target's tokens.
        Errors: ValueError for unequal counts, and as translate.
        """
        if len(sources) != len(targets):
            raise ValueError(f"align: {len(sources)} sources and {len(targets)} targets, expected equal counts")
        source_tokens = [self._numbered("align", i, text) for i, text in enumerate(sources)]
        target_tokens = [self.target_vocab.tokenize(_text("align", i, text)) for i, text in enumerate(targets)]
        results: list[Translation | None] = [None] * len(sources)
        lengths = [max(len(s), len(t)) + 1 for s, t in zip(source_tokens, target_tokens, strict=True)]
        for indices in _batches(lengths, empty=True):
            batch = Batch.from_ids(
                [self.source_vocab.encode(source_tokens[i]) for i in indices],
                [self.target_vocab.encode(target_tokens[i]) for i in indices],
            )
            log_probabilities, weights = self.model.force(batch)
            for row, i in enumerate(indices):
                tokens, read = target_tokens[i], [*source_tokens[i], SOURCE_END]
                score = float(log_probabilities[row, : len(tokens) + 1].mean(dtype=np.float64))
                results[i] = Translation(
                    targets[i], tokens, read, score, weights[row, : len(tokens), : len(read)].copy()
                )
        return [result for result in results if result is not None]

    def tokenize(self, text: str) -> list[str]:
        """The tokens the encoder reads for a text, without the end symbol; [] for white space alone.

        Errors: DataError for a text without the two columns the model wants or of more than max_source tokens.
        """
        if not text.strip():
            return []
        tokens = self.source_vocab.tokenize(two_column_tokens(text) if self.two_columns else text)
        if len(tokens) > self.max_source:
            raise DataError(f"the source has {len(tokens)} tokens, expected at most {self.max_source}")
        return tokens

    def _numbered(self, where: str, index: int, text: str) -> list[str]:
        try:
            return self.tokenize(_text(where, index, text))
        except DataError as error:
            raise DataError(f"{where}: text {index}: {error}") from None

    def _limits(self, lengths: np.ndarray) -> np.ndarray:
        spells = self.source_vocab.level == "word" and self.target_vocab.level == "char"
        return (8 if spells else 2) * lengths + 10

    def _translation(self, source_tokens: list[str], hypotheses: list[Hypothesis]) -> Translation:
        best, *others = (
            Translation(
                self.target_vocab.decode(h.ids),
                [self.target_vocab.tokens[i] for i in h.ids],
                source_tokens,
                h.score,
                h.weights,
            )
            for h in hypotheses
        )
        return Translation(best.text, best.tokens, source_tokens, best.score, best.weights, tuple(others))


def load(folder: str | os.PathLike[str]) -> Translator:
    """The trained model of a folder that `dhyan train` wrote. Errors: CheckpointError naming file and part."""
    loaded = load_folder(os.fspath(folder))
    return Translator(
        loaded.model,
        loaded.source_vocabulary,
        loaded.target_vocabulary,
        two_columns="," in loaded.data.columns,
        max_source=loaded.data.max_length,
    )


def _text(where: str, index: int, text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{where}: text {index} is a {type(text).__name__}, expected str")
    return text


def _batches(lengths: Sequence[int], empty: bool = False) -> Iterator[list[int]]:
    """Indices of the texts, shortest first, in batches of bounded size; texts without tokens are left out."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if not lengths[i] and not empty:
            continue
        if batch and (len(batch) == BATCH_SENTENCES or (len(batch) + 1) * lengths[i] > BATCH_POSITIONS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
