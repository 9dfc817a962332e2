"""Several models of one pair of vocabularies that decode together, with the stepwise interface of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhyan.text.batch import Batch

from .config import ModelConfig
from .seq2seq import Seq2Seq
from .steps import DecoderState


@dataclass(frozen=True, eq=False)
class EnsembleState:
    """Where N hypotheses stand in every model."""

    states: tuple[DecoderState, ...]

    def select(self, rows: np.ndarray) -> EnsembleState:
        """The states of these rows (M,), in this order; a row may be repeated or left out."""
        return EnsembleState(tuple(state.select(rows) for state in self.states))


class Ensemble:
    """p(next token) = the mean over the models of their p; weights: the mean of the models' attention weights.

    The mean is one of probabilities, not of their logarithms: it is a distribution again, and a token that one model
    holds impossible stays possible. The models may differ in everything but what goes in and comes out.
    Errors: ValueError for no model, and where source, vocabulary sizes or dtype differ.
    """

    def __init__(self, models: Sequence[Seq2Seq]) -> None:
        if not models:
            raise ValueError("Ensemble: got no model, expected at least one")
        first = models[0]
        for number, model in enumerate(models[1:], 2):
            for name in ("source", "source_size", "target_size", "copy"):
                got, expected = getattr(model.config, name), getattr(first.config, name)
                if got != expected:
                    raise ValueError(
                        f"Ensemble: {name} of model {number} is {got!r}, expected {expected!r} of the first"
                    )
            if model.dtype != first.dtype:
                raise ValueError(f"Ensemble: model {number} is {model.dtype}, expected {first.dtype} of the first")
        self.models = tuple(models)

    @property
    def config(self) -> ModelConfig:
        """The first model's."""
        return self.models[0].config

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of all models."""
        return self.models[0].dtype

    def start(
        self,
        source: np.ndarray,
        source_lengths: np.ndarray,
        alignment: np.ndarray | None = None,
        shortlist: np.ndarray | None = None,
        copies: np.ndarray | None = None,
    ) -> EnsembleState:
        """Encode the sentences in every model; alignment, shortlist and copies as `Seq2Seq.start`."""
        return EnsembleState(tuple(m.start(source, source_lengths, alignment, shortlist, copies) for m in self.models))

    def advance(
        self, state: EnsembleState, tokens: np.ndarray, sentence: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, EnsembleState]:
        """One step: log-probabilities (N, V), weights (N, S) and the next state; row i reads sentence[i]."""
        steps = [m.advance(s, tokens, sentence) for m, s in zip(self.models, state.states, strict=True)]
        log_probabilities, weights, states = zip(*steps, strict=True)
        return _log_mean(log_probabilities), _mean(weights), EnsembleState(states)

    def force(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Teacher forcing: log-probabilities (B, T) of the given target tokens, and the weights (B, T, S)."""
        log_probabilities, weights = zip(*(model.force(batch) for model in self.models), strict=True)
        return _log_mean(log_probabilities), _mean(weights)

    def force_copying(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `Seq2Seq.force_copying`: p_gen is the mean, copied the copied share of the mean of the probabilities."""
        found = [model.force_copying(batch) for model in self.models]
        log_probabilities, weights, p_gen, copied = zip(*found, strict=True)
        mean = _log_mean(log_probabilities)
        share = _mean([np.exp(log_p - mean) * c for log_p, c in zip(log_probabilities, copied, strict=True)])
        return mean, _mean(weights), _mean(p_gen), np.clip(share, 0, 1)


def _log_mean(log_probabilities: Sequence[np.ndarray]) -> np.ndarray:
    """log of the mean of exp, element by element, model after model."""
    if len(log_probabilities) == 1:
        return log_probabilities[0]
    top = np.maximum.reduce(log_probabilities)
    shift = np.where(np.isfinite(top), top, 0)  # -inf everywhere stays -inf, and NaN stays NaN
    total = np.zeros_like(top)
    for one in log_probabilities:
        total += np.exp(one - shift)
    with np.errstate(divide="ignore"):
        found: np.ndarray = np.log(total / top.dtype.type(len(log_probabilities))) + shift
    return found


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    total = arrays[0]
    for one in arrays[1:]:
        total = total + one
    return total if len(arrays) == 1 else total / total.dtype.type(len(arrays))
