"""A model that tells after every step of a search what its best open hypothesis is, and that can be stopped.

It stands before any model with the stepwise interface of `search`, and passes everything through: results are the same
bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class _Step:
    """The hypotheses that a step of the model read: token each ends with, its weights, and the row it extends."""

    before: _Step | None
    rows: np.ndarray  # (N,) of the step before
    tokens: np.ndarray  # (N,) read at this step; at the first one the begin symbol
    weights: np.ndarray  # (N, S) with which the next token is written


@dataclass(frozen=True)
class _State:
    """The model's own state, and the steps that led to it."""

    inner: Any
    step: _Step | None
    rows: np.ndarray

    def select(self, rows: np.ndarray) -> _State:
        return _State(self.inner.select(rows), self.step, self.rows[rows])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Watched:
    """model, calling `check` before each step; what that raises ends the search.

    told(ids, weights), where it is given, hears before each step but the first the tokens (t,) so far and their
    weights (t, S): of several open hypotheses those of the first row, which searches keep for the best. One sentence a
    search.
    """

    def __init__(
        self, model: Any, check: Callable[[], None], told: Callable[[list[int], np.ndarray], None] | None = None
    ) -> None:
        self._model, self._check, self._told = model, check, told

    def __getattr__(self, name: str) -> Any:
        if name == "beam":  # the whole search in one call, which nobody could watch
            raise AttributeError(name)
        value = getattr(self._model, name)
        return self._advancing(value) if name in ("advance", "advance_top") else value

    def start(self, *arguments: Any, **named: Any) -> Any:
        state = self._model.start(*arguments, **named)
        return _State(state, None, np.zeros(1, np.int64)) if self._told else state

    def _advancing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        told = self._told

        def advance(state: Any, tokens: np.ndarray, *arguments: Any) -> tuple[Any, ...]:
            self._check()
            if told is None:
                found: tuple[Any, ...] = function(state, tokens, *arguments)
                return found
            if state.step is not None:
                told(*_walk(state, tokens))
            *others, weights, inner = function(state.inner, tokens, *arguments)
            step = _Step(state.step, state.rows, np.asarray(tokens), weights)
            return (*others, weights, _State(inner, step, np.arange(len(tokens))))

        return advance


def _walk(state: _State, tokens: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The first row's tokens and the weights each was written with."""
    ids, weights = [int(tokens[0])], []
    step, row = state.step, state.rows[0]
    while step is not None:
        weights.append(step.weights[row])
        ids.append(int(step.tokens[row]))
        row = step.rows[row]
        step = step.before
    return ids[-2::-1], np.array(weights[::-1])  # without the begin symbol
