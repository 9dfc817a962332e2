"""The decoder a step at a time, as search needs it: where hypotheses stand, and one step of all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dhyan.attention.read import NO_FEEDBACK, Feedback
from dhyan.ops import decoder as core_ops
from dhyan.text.vocabulary import BEGIN, END

from .arrays import Arrays
from .config import ModelConfig
from .copying import Copier, largest
from .decoder import Memory, core_parameters, initial_states
from .feedback import SearchCallback, padded_memory


@dataclass(frozen=True)
class DecoderState:
    """Where N hypotheses stand: their hidden states; the sentences they read are shared and never copied.

    h, c (L, N, H); readout (N, E); position (N,) decoder steps made; callback and what its rows feed back, where the
    core does not read by itself; copier, where the model copies.
    """

    stepper: Any
    h: np.ndarray
    c: np.ndarray | None
    readout: np.ndarray
    position: np.ndarray
    callback: SearchCallback | None = None
    feedback: Feedback = NO_FEEDBACK
    copier: Copier | None = None

    def select(self, rows: np.ndarray) -> DecoderState:
        """The states of these rows (M,), in this order; a row may be repeated or left out."""
        c = None if self.c is None else self.c[:, rows]
        h, readout, position = self.h[:, rows], self.readout[rows], self.position[rows]
        return DecoderState(self.stepper, h, c, readout, position, self.callback, self.feedback.take(rows), self.copier)


def step_weights(config: ModelConfig, p: Arrays, *, shrunk: bool = False) -> Any:
    """The weights in the forms that steps read; the arrays must not change while it is in use.

    shrunk: matrices of bfloat16 numbers are kept in two bytes a weight as well, those of bytes times a power of two for
    each column in one; results do not change.
    """
    return core_ops.StepWeights(
        core_parameters(config, p), p["target_embedding"], p["output.weight"], p["output.bias"], shrunk
    )


def start(
    config: ModelConfig,
    p: Arrays,
    memory: Memory,
    final: np.ndarray,
    weights: Any = None,
    shortlist: np.ndarray | None = None,
    copies: np.ndarray | None = None,
) -> DecoderState:
    """The state before the first step, one row a sentence. weights: of `step_weights`, made for this search if None.

    shortlist (B, V) bool: the tokens that each sentence may choose; the others have no share of the probability.
    copies (B, S): the source tokens as target ids, where the model copies.
    """
    h0, c0, _ = initial_states(config, p, final)
    ids = allowed = None
    if shortlist is not None:
        ids = np.flatnonzero(shortlist.any(0))
        allowed = np.ascontiguousarray(shortlist[:, ids]).view(np.uint8)
    stepper = core_ops.Stepper(step_weights(config, p) if weights is None else weights, memory.core, ids, allowed)
    B = len(final)
    state = DecoderState(stepper, h0, c0, np.zeros((B, config.embedding), final.dtype), np.zeros(B, np.int64))
    if copies is not None:
        w, b = p["copy.weight"].copy(), p["copy.bias"].copy()
        state = replace(state, copier=Copier(w, b, copies, config.target_size))
    if not config.setting.step_by_step:
        return state
    own = p.group("attention")
    if weights is None:  # as the stepper's: training on must not change a search under way
        own = {name: array.copy() for name, array in own.items()}
    callback = SearchCallback(config.setting, own, padded_memory(memory.values, memory.keys, memory.lengths))
    return replace(state, callback=callback, feedback=callback.start())


def advance(
    state: DecoderState, tokens: np.ndarray, sentence: np.ndarray
) -> tuple[np.ndarray, np.ndarray, DecoderState]:
    """One step of N rows: log-probabilities (N, V) of the next token, weights (N, S), and the state after it.

    Where the model copies they are (N, V + most own words of a sentence), -inf for those of other sentences.
    """
    (log_probabilities,), weights, after = _advance(state, tokens, sentence, -1)
    if state.copier is not None:
        log_probabilities = state.copier.mix(log_probabilities, weights, after.readout, sentence)
    return log_probabilities, weights, after


def advance_top(
    state: DecoderState, tokens: np.ndarray, sentence: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, DecoderState]:
    """advance with only the k largest log-probabilities of each row (N, k), and their ids; of equals the lower id."""
    if state.copier is not None:
        log_probabilities, weights, after = advance(state, tokens, sentence)
        return *largest(log_probabilities, k), weights, after
    (log_probabilities, ids), weights, after = _advance(state, tokens, sentence, k)
    return log_probabilities, ids, weights, after


def beam(
    state: DecoderState, beam: int, nbest: int, limits: np.ndarray, norm: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int] | None:
    """Plain beam search from the first state in the core; None where it does not read by itself, or the model copies.

    limits (B,): most steps of each sentence; norm[n]: what the sum of n log-probabilities is divided by. Returns ids
    (B, beam, T) with the end symbol, weights (B, beam, T, S), sums, steps (0: no hypothesis) and finished (B, beam),
    and the first step that gave NaN, 0 without one.
    """
    if state.callback is not None or state.copier is not None:
        return None
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
    found = state.stepper.beam(state.h, state.c, BEGIN, END, beam, nbest, limits, norm)
    return found


def _advance(
    state: DecoderState, tokens: np.ndarray, sentence: np.ndarray, top: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray, DecoderState]:
    callback = None if state.callback is None else state.callback.after(state.feedback)
    if state.copier is not None:
        tokens = state.copier.read(tokens)
    *found, weights, h, c, readout = state.stepper.step(
        tokens, sentence, state.position, state.h, state.c, state.readout, callback, top
    )
    feedback = state.feedback if callback is None else callback.feedback
    after = DecoderState(state.stepper, h, c, readout, state.position + 1, state.callback, feedback, state.copier)
    return tuple(found), weights, after
