"""Beam search over any model with the stepwise interface `start`, `advance`, `select`; it keeps the attention weights.

    state = model.start(source, source_lengths)                              encodes; one row a sentence
    log_probabilities (N, V), weights (N, S), state = model.advance(state, tokens (N,), sentence (N,))
    state = state.select(rows (M,))                                          reorders or repeats hidden states

Row i of a step reads sentence `sentence[i]`: the encoder memory is shared by all hypotheses and never copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import NumericError
from .vocab import BEGIN, END


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One translation: `ids` (T) without the end symbol, and `weights` (T, S), S the sentence's own length.

    score = (sum of log p over ids and the end symbol) / n ** length_penalty, n = number of symbols summed, in nats.
    `finished` is False where the search stopped at max_length before the model wrote its end symbol.
    """

    ids: list[int]
    score: float
    weights: np.ndarray
    finished: bool = True


def beam_search(
    model: Any,
    source: np.ndarray,
    source_lengths: np.ndarray,
    *,
    beam: int = 5,
    max_length: int | np.ndarray | None = None,
    nbest: int = 1,
    length_penalty: float = 1.0,
    alignment: np.ndarray | None = None,
    copies: np.ndarray | None = None,
) -> list[list[Hypothesis]]:
    """The `nbest` best hypotheses of every sentence, best first; all sentences of the batch advance together.

    source: (B, S) int64 ids or (B, S, F) features; source_lengths: (B,) int64. max_length: decoder steps of all, or of
    each (B,), the end symbol counts as one; None = 2 length + 10. A finished hypothesis leaves the beam and narrows it
    by one (Bahdanau et al. 2014); a sentence is done when its beam is empty, or when no open hypothesis can beat its
    nbest-th finished one. Finished ones rank before those cut at max_length. Of equal scores the lower token id wins,
    then the earlier hypothesis. beam=1 is greedy search. alignment (B, T, S): what the scoring "oracle" reads by;
    copies (B, S): the source tokens as target ids, for a model that copies. What has probability 0 is never taken.

    ValueError: beam < 1, nbest outside 1..beam, max_length < 1, length_penalty negative or not finite.
    NumericError: the model returns NaN.
    """
    lengths = np.asarray(source_lengths, dtype=np.int64)
    limits = np.broadcast_to(2 * lengths + 10 if max_length is None else np.asarray(max_length), lengths.shape)
    _check(beam, limits, nbest, length_penalty)
    if not len(lengths):
        return []
    search = _Search(lengths, limits, beam, nbest, length_penalty)
    given = {name: a for name, a in (("alignment", alignment), ("copies", copies)) if a is not None}
    state = model.start(source, lengths, **given)
    while len(search.sentence):
        found, weights, state = _advance(model, state, search.tokens, search.sentence, int(search.capacity.max()))
        state = state.select(search.step(found, weights))
    return [sorted(done, key=lambda h: (not h.finished, -h.score))[:nbest] for done in search.closed]


# Candidates of a step: row, token and log-probability of each.
_Found = tuple[np.ndarray, np.ndarray, np.ndarray]


def _advance(
    model: Any, state: Any, tokens: np.ndarray, sentence: np.ndarray, most: int
) -> tuple[_Found, np.ndarray, Any]:
    """One step of the model; no more than `most` continuations of one row can win, and only those come back."""
    if hasattr(model, "advance_top"):
        values, ids, weights, state = model.advance_top(state, tokens, sentence, most)
        rows = np.repeat(np.arange(len(ids)), ids.shape[1])
        if values.size and values.min() == -np.inf:  # such as the words of another sentence, which it may copy
            kept = values.ravel() != -np.inf
            return (rows[kept], ids.ravel()[kept], values.ravel()[kept]), weights, state
        return (rows, ids.ravel(), values.ravel()), weights, state
    log_probabilities, weights, state = model.advance(state, tokens, sentence)
    place = max(log_probabilities.shape[1] - most, 0)
    least = np.partition(log_probabilities, place, axis=1)[:, place]  # NaN sorts last, and is let through
    kept = ~(log_probabilities < least[:, None])
    rows, ids = np.divmod(np.flatnonzero(kept), log_probabilities.shape[1])
    return (rows, ids, log_probabilities[rows, ids]), weights, state


def _check(beam: int, limits: np.ndarray, nbest: int, length_penalty: float) -> None:
    if beam < 1:
        raise ValueError(f"beam_search: beam is {beam}, expected at least 1")
    if not 1 <= nbest <= beam:
        raise ValueError(f"beam_search: nbest is {nbest}, expected 1 to beam = {beam}")
    if len(limits) and limits.min() < 1:
        raise ValueError(f"beam_search: max_length is {limits.min()}, expected at least 1")
    if not 0 <= length_penalty < np.inf:
        raise ValueError(f"beam_search: length_penalty is {length_penalty}, expected a finite number, 0 or more")


@dataclass(frozen=True)
class _Step:
    """The open hypotheses after a step: token, weights, and which one of the step before each extends."""

    tokens: np.ndarray  # (N,)
    parents: np.ndarray  # (N,)
    weights: np.ndarray  # (N, S)


class _Search:
    """The open hypotheses of all sentences (rows, grouped by sentence) and the closed ones of each."""

    def __init__(self, lengths: np.ndarray, limits: np.ndarray, beam: int, nbest: int, length_penalty: float) -> None:
        self.lengths, self.limits, self.nbest, self.length_penalty = lengths, limits, nbest, length_penalty
        self.sentence = np.arange(len(lengths))
        self.tokens = np.full(len(lengths), BEGIN, dtype=np.int64)
        self.sums = np.zeros(len(lengths))
        self.capacity = np.full(len(lengths), beam)
        self.closed: list[list[Hypothesis]] = [[] for _ in lengths]
        self.history: list[_Step] = []
        self.shortest, self.enough = limits.min(), False  # enough: some sentence has its nbest finished ones

    def step(self, found: _Found, weights: np.ndarray) -> np.ndarray:
        """Extend, close what ended; returns the rows (M,) that the open hypotheses extend."""
        rows, tokens, sums = self._best(*found)
        sentence = self.sentence[rows]
        self.history.append(_Step(tokens, rows, weights[rows]))
        if len(self.history) < self.shortest and not self.enough and END not in tokens:  # most steps
            self.sentence, self.tokens, self.sums = sentence, tokens, sums
            return rows
        ended = tokens == END
        for i in np.flatnonzero(ended):
            self._close(int(i), int(sentence[i]), float(sums[i]), finished=True)
        self.capacity -= np.bincount(sentence[ended], minlength=len(self.capacity))
        is_open = ~ended & ~self._settled(sentence, np.where(ended, -np.inf, sums))[sentence]
        full = len(self.history) >= self.limits[sentence]
        for i in np.flatnonzero(is_open & full):
            self._close(int(i), int(sentence[i]), float(sums[i]), finished=False)
        keep = np.flatnonzero(is_open & ~full)
        self.history[-1] = _Step(tokens[keep], rows[keep], weights[rows[keep]])
        self.sentence, self.tokens, self.sums = sentence[keep], tokens[keep], sums[keep]
        return rows[keep]

    def _best(
        self, rows: np.ndarray, tokens: np.ndarray, log_probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best `capacity` continuations of each sentence: (row, token, sum of log p), grouped by sentence."""
        if np.isnan(log_probabilities).any():
            step = len(self.history) + 1
            raise NumericError(f"beam_search: the model gave NaN at step {step}, expected log-probabilities")
        sums = self.sums[rows] + log_probabilities
        if len(self.closed) == 1:
            order = np.lexsort((rows, tokens, -sums))[: self.capacity[0]]
            return rows[order], tokens[order], sums[order]
        order = np.lexsort((rows, tokens, -sums, self.sentence[rows]))
        sentence = self.sentence[rows[order]]
        rank = np.arange(len(order)) - np.searchsorted(sentence, sentence)
        order = order[rank < self.capacity[sentence]]
        return rows[order], tokens[order], sums[order]

    def _settled(self, sentence: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """(B,) True where no open hypothesis can beat the nbest-th finished one, whatever it writes from here on."""
        settled = np.zeros(len(self.closed), dtype=bool)
        if not self.enough:
            return settled
        best = np.full(len(self.closed), -np.inf)
        np.maximum.at(best, sentence, sums)
        # Sums only fall; divided by the largest length they can reach they bound the final score from above.
        bound = best / self.limits.astype(float) ** self.length_penalty
        for b in np.unique(sentence):
            scores = sorted((h.score for h in self.closed[b]), reverse=True)
            settled[b] = len(scores) >= self.nbest and scores[self.nbest - 1] >= bound[b]
        return settled

    def _close(self, row: int, b: int, total: float, *, finished: bool) -> None:
        """Walk back from `row` of the last step; a finished hypothesis leaves out its end symbol and those weights."""
        score = total / len(self.history) ** self.length_penalty
        ids: list[int] = []
        weights = np.empty((len(self.history), self.lengths[b]), self.history[0].weights.dtype)
        for t in range(len(self.history) - 1, -1, -1):
            step = self.history[t]
            ids.append(int(step.tokens[row]))
            weights[t] = step.weights[row, : self.lengths[b]]
            row = step.parents[row]
        count = len(ids) - finished
        self.closed[b].append(Hypothesis(ids[::-1][:count], score, weights[:count], finished))
        self.enough |= len(self.closed[b]) >= self.nbest
