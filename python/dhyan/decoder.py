"""Memory and target tokens -> readouts: the attention decoder, its loop in C++, and its steps for search.

Rows: N = sum of the decoder steps of all sentences, N_s = sum of the source lengths, sentence after sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from . import _core
from . import model_ops as ops
from .config import ModelConfig
from .copying import Copier, largest
from .dropout import Dropout, apply
from .parameters import Arrays
from .reader import SequenceReader, StepReader, padded_memory
from .reading import NO_FEEDBACK, Feedback
from .scoring_base import KeysGradient, Rows, Scorer
from .vocab import BEGIN, END


def _core_parameters(config: ModelConfig, p: Arrays, reader: Any = None) -> dict[str, Any]:
    """The dictionary that the binding reads; reader: what reads in the place of the core (`reader`), or None."""
    plan = config.plan
    scorer = Scorer("read") if plan.step_by_step else plan.scorer(p.group("attention"))
    return {
        "cell": config.cell,
        "order": config.order,
        "input_feeding": config.input_feeding,
        "residual": config.residual,
        "cells": [ops.cell_arrays(p.group(f"decoder.{layer}")) for layer in range(config.layers)],
        "term": scorer.term,
        "query": scorer.query,
        "w": scorer.w,
        "scale": scorer.scale,
        "normalize_query": scorer.normalize_query,
        "sparsemax": config.normalize == "sparsemax",
        "radius": config.radius,
        "reader": reader,
        "readout": p["readout.weight"],
        "readout_bias": p["readout.bias"],
    }


@dataclass(frozen=True)
class Memory:
    """What is attended to: values (N_s, D), keys (N_s, U) or None, lengths (B,); the oracle's alignment (B, T, S)."""

    values: np.ndarray
    keys: np.ndarray | None
    lengths: np.ndarray
    alignment: np.ndarray | None

    @property
    def rows(self) -> Rows:
        """The memory's rows, and where each stands in its sentence."""
        return _rows(self.values, self.lengths)

    @property
    def core(self) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, np.ndarray | None]:
        """The tuple that the binding reads."""
        return self.keys, self.values, self.lengths, self.alignment


def _rows(values: np.ndarray, lengths: np.ndarray) -> Rows:
    return Rows(values, lambda: np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths))


def read_memory(
    config: ModelConfig, p: Arrays, values: np.ndarray, lengths: np.ndarray, alignment: np.ndarray | None
) -> Memory:
    """Keys made once per sentence from the encoder's states. ValueError where the oracle lacks its alignment."""
    plan = config.plan
    if config.attention == "oracle":
        if alignment is None:
            raise ValueError("Seq2Seq: attention 'oracle' reads a given alignment (B, T, S), got none")
        if not isinstance(alignment, np.ndarray):
            raise TypeError(f"Seq2Seq: alignment is of type {type(alignment).__name__}, expected an array")
        longest = int(lengths.max(initial=0))
        if alignment.ndim != 3 or len(alignment) != len(lengths) or alignment.shape[2] < longest:
            raise ValueError(
                f"Seq2Seq: alignment has shape {alignment.shape}, expected (B={len(lengths)}, T, S), "
                f"S at least {longest}"
            )
        if not np.isfinite(alignment).all():
            raise ValueError("Seq2Seq: alignment holds NaN or infinity, expected weights")
        # Search may write on where the reference has ended: a last row of zeros, which the core reads from there on.
        T = alignment.shape[1]
        whole = np.zeros((len(lengths), T + 1, longest), values.dtype)
        whole[:, :T] = np.where(np.arange(longest) < lengths[:, None, None], alignment[:, :, :longest], 0)
        alignment = whole
    else:
        alignment = None
    keys = plan.scoring.keys(p.group("attention"), _rows(values, lengths), plan.sizes)
    return Memory(values, keys, lengths, alignment)


def initial_states(config: ModelConfig, p: Arrays, final: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, Any]:
    """h0, c0 (L, B, H) = tanh(final W + b), c0 for the lstm only; and what initial_states_backward reads."""
    states = np.tanh(ops.linear_forward(final, p["initial.weight"], p["initial.bias"]))
    kinds = 2 if config.cell == "lstm" else 1
    parts = states.reshape(len(final), kinds, config.layers, config.hidden).transpose(1, 2, 0, 3)
    h0 = np.ascontiguousarray(parts[0])
    c0 = np.ascontiguousarray(parts[1]) if config.cell == "lstm" else None
    return h0, c0, (final, states)


def initial_states_backward(
    p: Arrays, dh0: np.ndarray, dc0: np.ndarray | None, cache: Any, gradients: Arrays
) -> np.ndarray:
    """dfinal (B, H)."""
    final, states = cache
    kinds = [dh0] if dc0 is None else [dh0, dc0]
    dstates = np.empty_like(states)
    parts = dstates.reshape(len(states), len(kinds), len(dh0), dh0.shape[2])
    for kind, dstate in enumerate(kinds):
        parts[:, kind] = dstate.transpose(1, 0, 2)
    dstates *= 1 - states * states
    dw, db = gradients["initial.weight"], gradients["initial.bias"]
    dfinal, _, _ = ops.linear_backward(dstates, final, p["initial.weight"], dw=dw, db=db)
    return dfinal


@dataclass(frozen=True)
class DecoderCache:
    """What decoder_backward reads."""

    core: Any
    parameters: dict[str, Any]
    memory: Memory
    ids: np.ndarray  # target tokens that were read, of the rows of y
    y: np.ndarray  # (N, E), or (R, E) where index (N,) says which row a token reads
    index: np.ndarray | None
    mask: np.ndarray | None
    between: np.ndarray | None  # (L - 1, N, H)
    within: np.ndarray | None  # (L, B, H), of the states
    h0: np.ndarray
    c0: np.ndarray | None
    states: Any


def decoder_forward(
    config: ModelConfig,
    p: Arrays,
    memory: Memory,
    final: np.ndarray,
    ids: np.ndarray,
    steps: np.ndarray,
    dropout: Dropout,
    *,
    hard: bool = False,
) -> tuple[np.ndarray, np.ndarray, DecoderCache]:
    """readouts (N, E), weights (N, S), cache; ids (N,) are the tokens read, steps (B,) their counts.

    hard: the monotonic alignment as search makes it.
    """
    h0, c0, states = initial_states(config, p, final)
    mask, index = dropout.embedded("target embedding", ids, config.target_size, steps, config.embedding), None
    if mask is None and (once := ops.distinct(ids, config.target_size)):
        ids, index = once
    y = apply(ops.embedding_forward(p["target_embedding"], ids), mask)
    between = None
    if config.layers > 1:
        between = dropout.rows("decoder layers", steps, config.hidden, config.layers - 1)
    within = dropout.state("decoder", (config.layers, len(steps), config.hidden))
    reader = None
    if config.plan.step_by_step:
        padded = padded_memory(memory.values, memory.keys, memory.lengths)
        reader = SequenceReader(
            config.plan,
            p.group("attention"),
            padded,
            hard=hard and config.normalize == "monotonic",
            noise=dropout if config.normalize == "monotonic" else None,
        )
    parameters = _core_parameters(config, p, reader)
    readout, weights, core = _core.decoder_forward(parameters, memory.core, y, index, steps, h0, c0, between, within)
    cache = DecoderCache(core, parameters, memory, ids, y, index, mask, between, within, h0, c0, states)
    return readout, weights, cache


def decoder_backward(
    config: ModelConfig,
    p: Arrays,
    dreadout: np.ndarray,
    dweights: np.ndarray | None,
    cache: DecoderCache,
    gradients: Arrays,
) -> tuple[np.ndarray, np.ndarray]:
    """dmemory (N_s, D) and dfinal (B, H); writes the decoder's and the attention's gradients."""
    plan, c = config.plan, cache
    own = gradients.group("attention")
    into = plan.scoring.gradient_targets(own, plan.sizes)
    parameters, reader = c.parameters, None
    if plan.step_by_step:
        reader = c.parameters["reader"].backward()
        parameters = {**c.parameters, "reader": reader}
    written = {
        "cells": [ops.cell_arrays(gradients.group(f"decoder.{layer}")) for layer in range(config.layers)],
        "query": into.query,
        "w": into.w,
        "readout": gradients["readout.weight"],
        "readout_bias": gradients["readout.bias"],
    }
    dy, dh0, dc0, dkeys, dvalues, log_scale = _core.decoder_backward(
        c.core, parameters, c.memory.core, c.y, c.index, c.h0, c.c0, c.between, c.within, dreadout, dweights, written
    )
    dy = apply(dy, c.mask)
    ops.embedding_backward(dy, c.ids, config.target_size, out=gradients["target_embedding"])
    if reader is not None:
        dvalues = reader.finish(c.memory.rows, c.memory.keys, own)
    elif c.memory.keys is not None:
        more = plan.scoring.keys_backward(
            KeysGradient(
                p.group("attention"), c.memory.rows, c.memory.keys, dkeys, log_scale, own, plan.sizes, into, dvalues
            )
        )
        if more is not None:
            dvalues += more
    return dvalues, initial_states_backward(p, dh0, dc0, c.states, gradients)


@dataclass(frozen=True)
class DecoderState:
    """Where N hypotheses stand: their hidden states; the sentences they read are shared and never copied.

    h, c (L, N, H); readout (N, E); position (N,) decoder steps made; reader and what its rows feed back, where the
    core does not read by itself; copier, where the model copies.
    """

    stepper: Any
    h: np.ndarray
    c: np.ndarray | None
    readout: np.ndarray
    position: np.ndarray
    reader: StepReader | None = None
    feedback: Feedback = NO_FEEDBACK
    copier: Copier | None = None

    def select(self, rows: np.ndarray) -> DecoderState:
        """The states of these rows (M,), in this order; a row may be repeated or left out."""
        c = None if self.c is None else self.c[:, rows]
        h, readout, position = self.h[:, rows], self.readout[rows], self.position[rows]
        return DecoderState(self.stepper, h, c, readout, position, self.reader, self.feedback.take(rows), self.copier)


def step_weights(config: ModelConfig, p: Arrays, *, shrunk: bool = False) -> Any:
    """The weights in the forms that steps read; the arrays must not change while it is in use.

    shrunk: matrices of bfloat16 numbers are kept in two bytes a weight as well, those of bytes times a power of two for
    each column in one; results do not change.
    """
    return _core.StepWeights(
        _core_parameters(config, p), p["target_embedding"], p["output.weight"], p["output.bias"], shrunk
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
    stepper = _core.Stepper(step_weights(config, p) if weights is None else weights, memory.core, ids, allowed)
    B = len(final)
    state = DecoderState(stepper, h0, c0, np.zeros((B, config.embedding), final.dtype), np.zeros(B, np.int64))
    if copies is not None:
        w, b = p["copy.weight"].copy(), p["copy.bias"].copy()
        state = replace(state, copier=Copier(w, b, copies, config.target_size))
    if not config.plan.step_by_step:
        return state
    own = p.group("attention")
    if weights is None:  # as the stepper's: training on must not change a search under way
        own = {name: array.copy() for name, array in own.items()}
    reader = StepReader(config.plan, own, padded_memory(memory.values, memory.keys, memory.lengths))
    return replace(state, reader=reader, feedback=reader.start())


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
    if state.reader is not None or state.copier is not None:
        return None
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]
    found = state.stepper.beam(state.h, state.c, BEGIN, END, beam, nbest, limits, norm)
    return found


def _advance(
    state: DecoderState, tokens: np.ndarray, sentence: np.ndarray, top: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray, DecoderState]:
    reader = None if state.reader is None else state.reader.after(state.feedback)
    if state.copier is not None:
        tokens = state.copier.read(tokens)
    *found, weights, h, c, readout = state.stepper.step(
        tokens, sentence, state.position, state.h, state.c, state.readout, reader, top
    )
    feedback = state.feedback if reader is None else reader.feedback
    after = DecoderState(state.stepper, h, c, readout, state.position + 1, state.reader, feedback, state.copier)
    return tuple(found), weights, after
