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

BEGIN, END = 1, 2


@dataclass(frozen=True)
class Hypothesis:
    """One translation: `ids` (T) without the end symbol, and `weights` (T, S), S the sentence's own length.

    score = (sum of log p over ids and the end symbol) / n ** length_penalty, n = number of symbols summed, in nats.
    `finished` is False where the search stopped at max_length before the model wrote its end symbol.
    """

    ids: list[int]
    score: float
    weights: np.ndarray
    finished: bool = True


@dataclass(frozen=True)
class _Step:
    """What one step chose: for each row its token, the row of the step before that it extends, and its weights."""

    tokens: np.ndarray
    parents: np.ndarray
    weights: np.ndarray


def beam_search(
    model: Any,
    source: np.ndarray,
    source_lengths: np.ndarray,
    *,
    beam: int = 5,
    max_length: int | None = None,
    nbest: int = 1,
    length_penalty: float = 1.0,
) -> list[list[Hypothesis]]:
    """The `nbest` best hypotheses of every sentence, best first; all sentences of the batch advance together.

    source: (B, S) int64 ids or (B, S, F) features, source_lengths: (B,) int64. max_length: decoder steps, the end symbol
    counts as one; None = 2 S + 10. A finished hypothesis leaves the beam and narrows it by one (Bahdanau et al. 2014);
    a sentence ends when its beam is empty or when no open hypothesis can beat its nbest-th finished one.
    Of equal scores the lower token id wins, then the earlier hypothesis; beam=1 is greedy search.

    ValueError: beam < 1, nbest outside 1..beam, max_length < 1, length_penalty negative or not finite.
    NumericError: the model returns NaN.
    """
    _check(beam, max_length, nbest, length_penalty)
    lengths = np.asarray(source_lengths)
    count = len(lengths)
    limit = 2 * int(np.shape(source)[1]) + 10 if max_length is None else max_length
    finished: list[list[Hypothesis]] = [[] for _ in range(count)]
    if count == 0:
        return finished

    state = model.start(source, source_lengths)
    sentence = np.arange(count)  # the sentence of each open hypothesis (row)
    tokens = np.full(count, BEGIN, dtype=np.int64)
    sums = np.zeros(count)
    steps: list[_Step] = []
    for length in range(1, limit + 1):
        log_probabilities, weights, state = model.advance(state, tokens, sentence)
        capacity = beam - np.array([len(done) for done in finished])
        rows, chosen, totals = _best(log_probabilities, sums, sentence, capacity, length)
        steps.append(_Step(chosen, rows, np.array(weights)[rows]))
        owner = sentence[rows]
        for i in np.flatnonzero(chosen == END):
            score = float(totals[i]) / length**length_penalty
            finished[owner[i]].append(_trace(steps, int(i), score, int(lengths[owner[i]]), finished=True))
        still = chosen != END
        still &= ~_settled(finished, owner, totals, still, nbest, length, limit, length_penalty)[owner]
        if length == limit:
            for i in np.flatnonzero(still):
                score = float(totals[i]) / length**length_penalty
                finished[owner[i]].append(_trace(steps, int(i), score, int(lengths[owner[i]]), finished=False))
        keep = np.flatnonzero(still)
        if not len(keep) or length == limit:
            break
        tokens, sums, sentence = chosen[keep], totals[keep], owner[keep]
        state = state.select(rows[keep])
        steps[-1] = _Step(chosen[keep], rows[keep], steps[-1].weights[keep])
    return [sorted(done, key=lambda h: (not h.finished, -h.score))[:nbest] for done in finished]


def _check(beam: int, max_length: int | None, nbest: int, length_penalty: float) -> None:
    if beam < 1:
        raise ValueError(f"beam_search: beam is {beam}, expected at least 1")
    if not 1 <= nbest <= beam:
        raise ValueError(f"beam_search: nbest is {nbest}, expected 1 to beam = {beam}")
    if max_length is not None and max_length < 1:
        raise ValueError(f"beam_search: max_length is {max_length}, expected at least 1")
    if not 0 <= length_penalty < np.inf:
        raise ValueError(f"beam_search: length_penalty is {length_penalty}, expected a finite number, 0 or more")


def _best(
    log_probabilities: np.ndarray, sums: np.ndarray, sentence: np.ndarray, capacity: np.ndarray, step: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best `capacity[b]` continuations of each sentence b: (row, token, sum of log p), rows grouped by sentence."""
    vocabulary = log_probabilities.shape[1]
    if np.isnan(log_probabilities).any():
        raise NumericError(f"beam_search: step {step} of the decoder gave NaN, expected log-probabilities")
    # No more than `capacity` continuations of one row can win, so only its largest ones, ties included, are sorted.
    place = max(vocabulary - int(capacity.max()), 0)
    least = np.partition(log_probabilities, place, axis=1)[:, place]
    rows, tokens = np.nonzero(log_probabilities >= least[:, None])
    totals = sums[rows] + log_probabilities[rows, tokens]
    order = np.lexsort((rows, tokens, -totals, sentence[rows]))
    owner = sentence[rows[order]]
    rank = np.arange(len(order)) - np.searchsorted(owner, owner)
    order = order[rank < capacity[owner]]
    return rows[order], tokens[order], totals[order]


def _settled(
    finished: list[list[Hypothesis]],
    owner: np.ndarray,
    totals: np.ndarray,
    still: np.ndarray,
    nbest: int,
    length: int,
    limit: int,
    length_penalty: float,
) -> np.ndarray:
    """(B,) True where no open hypothesis can beat the nbest-th finished one, whatever it writes from here on."""
    settled = np.zeros(len(finished), dtype=bool)
    best = np.full(len(finished), -np.inf)
    np.maximum.at(best, owner[still], totals[still])
    # Sums only fall; divided by the largest length they can reach they are an upper bound of the final score.
    bound = best / float(limit) ** length_penalty
    for b, done in enumerate(finished):
        if len(done) >= nbest:
            settled[b] = sorted((h.score for h in done), reverse=True)[nbest - 1] >= bound[b]
    return settled


def _trace(steps: list[_Step], row: int, score: float, length: int, *, finished: bool) -> Hypothesis:
    """Walk back from `row` of the last step; a finished hypothesis leaves out its end symbol and that row of weights."""
    ids, weights = [], []
    for step in reversed(steps):
        ids.append(int(step.tokens[row]))
        weights.append(step.weights[row, :length])
        row = int(step.parents[row])
    skip = 1 if finished else 0
    ids, weights = ids[skip:][::-1], weights[skip:][::-1]
    empty = np.zeros((0, length), dtype=steps[0].weights.dtype)
    return Hypothesis(ids, score, np.array(weights) if weights else empty, finished)
