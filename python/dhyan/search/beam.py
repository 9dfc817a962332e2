"""Search over any model with the stepwise interface `start`, `advance`, `select`; it keeps the attention weights.

    state = model.start(source, source_lengths)                              encodes; one row a sentence
    log_probabilities (N, V), weights (N, S), state = model.advance(state, tokens (N,), sentence (N,))
    state = state.select(rows (M,))                                          reorders or repeats hidden states

Row i of a step reads sentence `sentence[i]`: the encoder memory is shared by all hypotheses and never copied. A model
that has `advance_top` too (the k largest log-probabilities of each row) is asked for no more than can win.

One file, as sampling and restricted search are the same search with another way to extend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhyan.errors import NumericError
from dhyan.text.vocabulary import BEGIN, END

from .constraints import Bans, Constraints
from .options import SearchOptions
from .sampling import Draws

MOST_WHOLE = 10_000  # from more steps on a search goes step by step: one call would set aside room for them all
MOST_TOP = 128  # from here on all log-probabilities and a partition cost less than the largest picked one by one
LEAST_COVERAGE = 1e-6  # a position that nothing was read from counts as this, so that a score stays finite


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """One translation: `ids` (T) without the end symbol, and `weights` (T, S), S the sentence's own length.

    score: as `SearchOptions` defines it, in nats. `finished` is False where the search stopped at max_length before
    the model wrote its end symbol, or where nothing that is allowed could follow. end_weights (S,): what the end symbol
    was read by, None where it was not written.
    """

    ids: list[int]
    score: float
    weights: np.ndarray
    finished: bool = True
    end_weights: np.ndarray | None = None


def beam_search(
    model: Any,
    source: np.ndarray,
    source_lengths: np.ndarray,
    options: SearchOptions | None = None,
    *,
    limits: np.ndarray | None = None,
    alignment: np.ndarray | None = None,
    copies: np.ndarray | None = None,
    constraints: Constraints | None = None,
    shortlist: np.ndarray | None = None,
    **changes: Any,
) -> list[list[Hypothesis]]:
    """The `nbest` best hypotheses of every sentence, best first; all sentences of the batch advance together.

    source: (B, S) int64 ids or (B, S, F) features; source_lengths: (B,) int64. options, and as keywords the fields of
    it that differ. limits (B,): most decoder steps of each sentence, the end symbol counts as one; None: `step_limits`
    of 2 length + 10.
    A finished hypothesis leaves the beam and narrows it by one (Bahdanau et al. 2014); a sentence is done when its beam
    is empty, or when no open hypothesis can beat its nbest-th finished one. Finished ones rank before those cut short,
    of these first the ones that lack fewer tokens of their phrases. Of equal scores the lower token id wins, then the
    earlier hypothesis. beam=1 is greedy search. alignment (B, T, S): what the scoring "oracle" reads by; copies (B, S):
    the source tokens as target ids, for a model that copies. What has probability 0 is never taken.
    constraints: prefixes that outputs begin with, and phrases that stand in them: an output does not end before all are
    there, and the beam is shared out between hypotheses by how far they have got (Post and Vilar 2018).
    shortlist (B, V) bool: the tokens that each sentence may choose, for models whose start takes one.

    ValueError: a limit < 1, or too small for prefix and phrases; phrases while sampling; constraints of another number
    of sentences; and what `SearchOptions` refuses. NumericError: the model returns NaN.
    """
    options = SearchOptions.of(options, **changes)
    lengths = np.asarray(source_lengths, dtype=np.int64)
    if constraints is not None and len(constraints) != len(lengths):
        raise ValueError(f"beam_search: constraints are of {len(constraints)} sentences, expected B = {len(lengths)}")
    if limits is None:
        limits = step_limits(2 * lengths + 10, options, constraints)
    limits = np.broadcast_to(limits, lengths.shape)
    _check(limits, options, constraints)
    if not len(lengths):
        return []
    given = {"alignment": alignment, "shortlist": shortlist, "copies": copies}
    state = model.start(source, lengths, **{name: array for name, array in given.items() if array is not None})
    if constraints is None and options.plain and limits.max() <= MOST_WHOLE and hasattr(model, "beam"):
        whole = _whole(model, state, lengths, limits, options)
        if whole is not None:
            return whole
    search: _Search
    if options.sample:
        search = _Sampler(lengths, limits, options, constraints, Draws.of(source, lengths, options))
        if options.nbest > 1:
            state = state.select(search.sentence)
    else:
        search = _Search(lengths, limits, options, constraints)
    return search.run(model, state)


def greedy_search(model: Any, state: Any, lengths: np.ndarray, max_length: int) -> list[Hypothesis]:
    """The likeliest token at every step from `start` on: beam search with a beam of one. lengths (B,).

    NumericError: the model returns NaN.
    """
    if not len(lengths):
        return []
    limits = np.full(len(lengths), max_length)
    search = _Search(lengths, limits, SearchOptions(beam=1), None, where="greedy")
    return [hypotheses[0] for hypotheses in search.run(model, state)]


def step_limits(usual: np.ndarray, options: SearchOptions, constraints: Constraints | None) -> np.ndarray:
    """(B,) most decoder steps: options.max_length; without one `usual`, and what prefix, phrases, min_length need."""
    if options.max_length is not None:
        return np.full(usual.shape, options.max_length)
    more = 0 if constraints is None else constraints.steps() - 1
    return np.maximum(usual + more, options.min_length + 1)


def _check(limits: np.ndarray, options: SearchOptions, constraints: Constraints | None) -> None:
    if len(limits) and limits.min() < 1:
        raise ValueError(f"beam_search: max_length is {limits.min()}, expected at least 1")
    if constraints is None:
        return
    if constraints.constrained and options.sample:
        raise ValueError("beam_search: phrases that must be written need a beam, got sample = True")
    for limit, least in zip(limits, constraints.least(), strict=True):
        if limit < least:
            raise ValueError(
                f"beam_search: max_length is {limit}, expected at least {least} for prefix, phrases and end symbol"
            )


def _whole(
    model: Any, state: Any, lengths: np.ndarray, limits: np.ndarray, options: SearchOptions
) -> list[list[Hypothesis]] | None:
    """Plain beam search in one call of the model: what `_Search` finds, bit for bit, without its cost a step."""
    norm = np.array([1.0, *(options.length_norm(n) for n in range(1, int(limits.max()) + 1))])
    done = model.beam(state, options.beam, options.nbest, np.ascontiguousarray(limits, np.int64), norm)
    if done is None:
        return None
    ids, weights, totals, steps, finished, nan = done
    if nan:
        raise _nan("beam_search", nan)
    results = []
    for b, length in enumerate(lengths):
        scores = totals[b] / norm[steps[b]]
        order = sorted(np.flatnonzero(steps[b]), key=lambda i: (not finished[b, i], -scores[i]))
        own = []
        for i in order[: options.nbest]:
            count = steps[b, i] - finished[b, i]
            rows = weights[b, i, :count, :length].copy()
            last = weights[b, i, count, :length].copy() if finished[b, i] else None
            own.append(Hypothesis(ids[b, i, :count].tolist(), float(scores[i]), rows, bool(finished[b, i]), last))
        results.append(own)
    return results


def _nan(where: str, step: int) -> NumericError:
    return NumericError(f"{where}: the model gave NaN at step {step}, expected log-probabilities")


# Candidates of a step: row, token and log-probability of each.
_Found = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Step:
    """The open hypotheses after a step: token, weights, and which one of the step before each extends."""

    tokens: np.ndarray  # (N,)
    parents: np.ndarray  # (N,)
    weights: np.ndarray  # (N, S)


class _Search:
    """The open hypotheses of all sentences (rows, grouped by sentence) and the closed ones of each."""

    def __init__(
        self,
        lengths: np.ndarray,
        limits: np.ndarray,
        options: SearchOptions,
        constraints: Constraints | None,
        *,
        where: str = "beam_search",
    ) -> None:
        self.lengths, self.limits, self.options, self.where = lengths, limits, options, where
        self.sentence = np.arange(len(lengths))
        self._start(constraints)
        self.capacity = np.full(len(lengths), options.beam)
        self.closed: list[list[tuple[int, Hypothesis]]] = [[] for _ in lengths]  # and how much it lacks
        self.history: list[_Step] = []
        self.shortest, self.enough = limits.min(), False  # enough: some sentence has its nbest finished ones

    def _start(self, constraints: Constraints | None) -> None:
        self.tokens = np.full(len(self.sentence), BEGIN, dtype=np.int64)
        self.sums = np.zeros(len(self.sentence))
        ruled = self.options.restricted or constraints is not None
        self.rules = Bans(self.options, constraints, self.sentence) if ruled else None

    def run(self, model: Any, state: Any) -> list[list[Hypothesis]]:
        """Step until no hypothesis is open; of each sentence the best closed ones."""
        while len(self.sentence):
            found, weights, state = self.advance(model, state)
            state = state.select(self.step(found, weights))
        return self.results()

    def results(self) -> list[list[Hypothesis]]:
        """Of each sentence the best closed hypotheses."""
        ranked = [sorted(done, key=lambda c: (not c[1].finished, c[0], -c[1].score)) for done in self.closed]
        return [[hypothesis for _, hypothesis in done[: self.options.nbest]] for done in ranked]

    # ------------------------------------------------------------ the model's step

    def advance(self, model: Any, state: Any) -> tuple[_Found, np.ndarray, Any]:
        """One step of the model, and the continuations that can win."""
        if self.rules is None:
            return _advance(model, state, self.tokens, self.sentence, self._most())
        banned = self.rules.banned()
        forced, needed = self.rules.forced(), self.rules.needed()
        if (forced < 0).all() and not needed:
            most = self._most() + (banned >= 0).sum(1).max(initial=0)
            found, weights, state = _advance(model, state, self.tokens, self.sentence, int(most))
            return _without(found, banned), weights, state
        log_probabilities, weights, state = model.advance(state, self.tokens, self.sentence)
        self._refuse_nan(log_probabilities)
        return _ruled(log_probabilities, self._most(), banned, forced, needed), weights, state

    def _most(self) -> int:
        """No more than so many continuations of one row can win."""
        return int(self.capacity.max())

    def _refuse_nan(self, log_probabilities: np.ndarray) -> None:
        if np.isnan(log_probabilities).any():
            raise _nan(self.where, len(self.history) + 1)

    # ------------------------------------------------------------ what becomes of it

    def step(self, found: _Found, weights: np.ndarray) -> np.ndarray:
        """Extend, close what ended; returns the rows (M,) that the open hypotheses extend."""
        self._refuse_nan(found[2])
        if self.rules is not None:
            self._close_stuck(found[0])
        rows, tokens, sums = self._best(*found)
        sentence = self.sentence[rows]
        self.history.append(_Step(tokens, rows, weights[rows]))
        if len(self.history) < self.shortest and not self.enough and END not in tokens:  # most steps
            self._open(rows, tokens, sentence, sums)
            return rows
        ended = tokens == END
        for i in np.flatnonzero(ended):
            self._close(int(i), int(sentence[i]), float(sums[i]), finished=True)
        self.capacity -= np.bincount(sentence[ended], minlength=len(self.capacity))
        is_open = ~ended & ~self._settled(sentence, np.where(ended, -np.inf, sums))[sentence]
        full = len(self.history) >= self.limits[sentence]
        for i in np.flatnonzero(is_open & full):
            lacks = self.rules.missing(int(rows[i]), int(tokens[i])) if self.rules else 0
            self._close(int(i), int(sentence[i]), float(sums[i]), lacks)
        keep = np.flatnonzero(is_open & ~full)
        self.history[-1] = _Step(tokens[keep], rows[keep], weights[rows[keep]])
        self._open(rows[keep], tokens[keep], sentence[keep], sums[keep])
        return rows[keep]

    def _open(self, rows: np.ndarray, tokens: np.ndarray, sentence: np.ndarray, sums: np.ndarray) -> None:
        self.sentence, self.tokens, self.sums = sentence, tokens, sums
        if self.rules is not None:
            self.rules.take(rows, tokens)

    def _best(
        self, rows: np.ndarray, tokens: np.ndarray, log_probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The best `capacity` continuations of each sentence: (row, token, sum of log p), grouped by sentence."""
        sums = self.sums[rows] + log_probabilities
        if len(self.closed) == 1 and not self._shares():
            order = np.lexsort((rows, tokens, -sums))[: self.capacity[0]]
            return rows[order], tokens[order], sums[order]
        order = np.lexsort((rows, tokens, -sums, self.sentence[rows]))
        sentence = self.sentence[rows[order]]
        if self._shares():
            order = self._shared_out(order, sentence, rows, tokens)
        else:
            rank = np.arange(len(order)) - np.searchsorted(sentence, sentence)
            order = order[rank < self.capacity[sentence]]
        return rows[order], tokens[order], sums[order]

    def _shares(self) -> bool:
        return self.rules is not None and self.rules.constraints is not None

    def _shared_out(self, order: np.ndarray, sentence: np.ndarray, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        assert self.rules is not None
        kept = []
        for b in np.unique(sentence):
            own = order[sentence == b]
            kept.append(own[self.rules.shared_out(int(b), rows[own], tokens[own], int(self.capacity[b]))])
        return np.concatenate(kept) if kept else order

    def _settled(self, sentence: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """(B,) True where no open hypothesis can beat the nbest-th finished one, whatever it writes from here on."""
        settled = np.zeros(len(self.closed), dtype=bool)
        if not self.enough:
            return settled
        best = np.full(len(self.closed), -np.inf)
        np.maximum.at(best, sentence, sums)
        # Sums only fall; divided by the largest length they can reach they bound the final score from above. What is
        # added for coverage is 0 at most.
        bound = best / np.array([self.options.length_norm(n) for n in self.limits.tolist()])
        nbest = self.options.nbest
        for b in np.unique(sentence):
            scores = sorted((h.score for _, h in self.closed[b] if h.finished), reverse=True)
            settled[b] = len(scores) >= nbest and scores[nbest - 1] >= bound[b]
        return settled

    def _close_stuck(self, alive: np.ndarray) -> None:
        """Close the rows that nothing allowed can follow: none of them is in `alive`."""
        for row in np.setdiff1d(np.arange(len(self.sentence)), alive):
            assert self.rules is not None
            self._close(int(row), int(self.sentence[row]), float(self.sums[row]), self.rules.missing(int(row)))

    def _close(self, row: int, b: int, total: float, lacks: int = 0, *, finished: bool = False) -> None:
        """Walk back from `row` of the last step; a finished hypothesis leaves out its end symbol and those weights."""
        n = len(self.history)
        ids: list[int] = []
        weights = np.empty((n, self.lengths[b]), self.history[0].weights.dtype if n else np.float32)
        for t in range(n - 1, -1, -1):
            step = self.history[t]
            ids.append(int(step.tokens[row]))
            weights[t] = step.weights[row, : self.lengths[b]]
            row = step.parents[row]
        score = total / self.options.length_norm(max(n, 1))
        if self.options.coverage_penalty:
            covered = np.clip(weights.sum(0, dtype=np.float64), LEAST_COVERAGE, 1)
            score += self.options.coverage_penalty * float(np.log(covered).sum())
        count, last = n - finished, weights[-1] if finished else None
        self.closed[b].append((lacks, Hypothesis(ids[::-1][:count], score, weights[:count], finished, last)))
        self.enough |= len(self.closed[b]) >= self.options.nbest


class _Sampler(_Search):
    """Rows that draw their tokens, each on its own: `nbest` of every sentence."""

    def __init__(
        self,
        lengths: np.ndarray,
        limits: np.ndarray,
        options: SearchOptions,
        constraints: Constraints | None,
        draws: Draws,
    ) -> None:
        super().__init__(lengths, limits, options, constraints)
        self.sentence, self.draws = np.repeat(self.sentence, options.nbest), draws
        self._start(constraints)

    def _most(self) -> int:
        return self.options.top_k or 1 << 62  # more than any vocabulary has

    def _best(
        self, rows: np.ndarray, tokens: np.ndarray, log_probabilities: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = self.draws.choose(rows, tokens, log_probabilities)
        rows = rows[chosen]
        return rows, tokens[chosen], self.sums[rows] + log_probabilities[chosen]

    def _settled(self, sentence: np.ndarray, sums: np.ndarray) -> np.ndarray:
        return np.zeros(len(self.closed), dtype=bool)

    def _open(self, rows: np.ndarray, tokens: np.ndarray, sentence: np.ndarray, sums: np.ndarray) -> None:
        super()._open(rows, tokens, sentence, sums)
        self.draws.take(rows)


def _advance(
    model: Any, state: Any, tokens: np.ndarray, sentence: np.ndarray, most: int
) -> tuple[_Found, np.ndarray, Any]:
    """One step of the model; no more than `most` continuations of one row can win, and only those come back."""
    if most <= MOST_TOP and hasattr(model, "advance_top"):
        values, ids, weights, state = model.advance_top(state, tokens, sentence, most)
        found = np.repeat(np.arange(len(ids)), ids.shape[1]), ids.ravel(), values.ravel()
    else:
        log_probabilities, weights, state = model.advance(state, tokens, sentence)
        found = _largest(log_probabilities, most)
    return _possible(found), weights, state


def _possible(found: _Found) -> _Found:
    """Found without what has probability 0, such as words that only another sentence could copy."""
    rows, tokens, values = found
    if len(values) and values.min() == -np.inf:
        kept = values != -np.inf
        return rows[kept], tokens[kept], values[kept]
    return found


def _largest(log_probabilities: np.ndarray, most: int) -> _Found:
    """The `most` largest of each row, and those equal to the last of them."""
    place = max(log_probabilities.shape[1] - most, 0)
    least = np.partition(log_probabilities, place, axis=1)[:, place]  # NaN sorts last, and is let through
    kept = ~(log_probabilities < least[:, None])
    rows, ids = np.divmod(np.flatnonzero(kept), log_probabilities.shape[1])
    return rows, ids, log_probabilities[rows, ids]


def _without(found: _Found, banned: np.ndarray) -> _Found:
    """Found without the banned (N, K) tokens of each row."""
    rows, tokens, values = found
    kept = ~(tokens[:, None] == banned[rows]).any(1)
    return rows[kept], tokens[kept], values[kept]


def _ruled(
    log_probabilities: np.ndarray,
    most: int,
    banned: np.ndarray,
    forced: np.ndarray,
    needed: Sequence[tuple[int, int]],
) -> _Found:
    """Of rows with a forced token that alone; of the others the largest that are allowed, and what is needed."""
    V = log_probabilities.shape[1]
    if (forced >= V).any() or any(token >= V for _, token in needed):
        raise ValueError(f"beam_search: prefix or phrases hold an id outside the vocabulary of {V}")
    rows, tokens, _ = _without(_largest(log_probabilities, most + banned.shape[1]), banned)
    free = forced[rows] < 0
    further = [row * V + i for row, i in needed if forced[row] < 0 and i not in banned[row]]
    held = np.flatnonzero(forced >= 0)
    keys = [rows[free] * V + tokens[free], held * V + forced[held], np.array(further, np.int64)]
    rows, tokens = np.divmod(np.unique(np.concatenate(keys)), V)
    return _possible((rows, tokens, log_probabilities[rows, tokens]))
