"""Memory and target tokens -> readouts: the attention decoder in training, its loop in C++.

Rows: N = sum of the decoder steps of all sentences, N_s = sum of the source lengths, sentence after sentence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhyan import ops
from dhyan.attention.scoring import KeysGradient, Rows, Scorer
from dhyan.ops import decoder as core_ops

from .arrays import Arrays, Parameter, linear, under
from .cells import CELLS
from .config import ModelConfig
from .dropout import Dropout, apply
from .feedback import SequenceCallback, padded_memory


def decoder_parameters(config: ModelConfig) -> Iterator[Parameter]:
    """initial.* of the first states, attention.*, decoder.LAYER.* of the cells, readout.*; not the embedding."""
    c, cell = config, CELLS.find(config.cell)
    E, H, D = c.embedding, c.hidden, c.memory_size
    yield from under("initial", linear(H, c.layers * H * cell.states))
    yield from under("attention", c.setting.parameters())
    width = E + (D if c.order == "bahdanau" else E if c.input_feeding else 0)
    for layer in range(c.layers):
        yield from under(f"decoder.{layer}", cell.parameters(width, H, layer_norm=c.layer_norm))
        width = H
    yield from under("readout", linear(H + D + (E if c.order == "bahdanau" else 0), E))


def _core_arrays(config: ModelConfig, arrays: Arrays) -> dict[str, Any]:
    """Parameters or their gradients by the names that the binding reads or writes, those of the attention left out."""
    return {
        "cells": [ops.cell_arrays(arrays.group(f"decoder.{layer}")) for layer in range(config.layers)],
        "readout": arrays["readout.weight"],
        "readout_bias": arrays["readout.bias"],
    }


def core_parameters(config: ModelConfig, p: Arrays, callback: Any = None) -> dict[str, Any]:
    """The dictionary that the binding reads; callback: what reads in place of the core, or None."""
    setting = config.setting
    scorer = Scorer("read") if setting.step_by_step else setting.scorer(p.group("attention"))
    return {
        "cell": config.cell,
        "order": config.order,
        "input_feeding": config.input_feeding,
        "residual": config.residual,
        "term": scorer.term,
        "query": scorer.query,
        "w": scorer.w,
        "scale": scorer.scale,
        "normalize_query": scorer.normalize_query,
        "sparsemax": config.normalize == "sparsemax",
        "radius": config.radius,
        "reader": callback,
        **_core_arrays(config, p),
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


def make_keys(
    config: ModelConfig, p: Arrays, values: np.ndarray, lengths: np.ndarray, alignment: np.ndarray | None
) -> Memory:
    """Keys made once per sentence from the encoder's states. ValueError where the oracle lacks its alignment."""
    setting = config.setting
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
    keys = setting.scoring.keys(p.group("attention"), _rows(values, lengths), setting.sizes)
    return Memory(values, keys, lengths, alignment)


def initial_states(config: ModelConfig, p: Arrays, final: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, Any]:
    """h0, c0 (L, B, H) = tanh(final W + b), c0 for the lstm only; and what initial_states_backward reads."""
    states = np.tanh(ops.linear_forward(final, p["initial.weight"], p["initial.bias"]))
    kinds = CELLS.find(config.cell).states
    parts = states.reshape(len(final), kinds, config.layers, config.hidden).transpose(1, 2, 0, 3)
    h0 = np.ascontiguousarray(parts[0])
    c0 = np.ascontiguousarray(parts[1]) if kinds == 2 else None
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
    callback = None
    if config.setting.step_by_step:
        padded = padded_memory(memory.values, memory.keys, memory.lengths)
        callback = SequenceCallback(
            config.setting,
            p.group("attention"),
            padded,
            hard=hard and config.setting.normalizer.feedback,
            noise=dropout if config.setting.normalizer.feedback else None,
        )
    parameters = core_parameters(config, p, callback)
    readout, weights, core = core_ops.decoder_forward(parameters, memory.core, y, index, steps, h0, c0, between, within)
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
    setting, c = config.setting, cache
    own = gradients.group("attention")
    into = setting.scoring.gradient_targets(own, setting.sizes)
    parameters, callback = c.parameters, None
    if setting.step_by_step:
        callback = c.parameters["reader"].backward()
        parameters = {**c.parameters, "reader": callback}
    written = {"query": into.query, "w": into.w, **_core_arrays(config, gradients)}
    dy, dh0, dc0, dkeys, dvalues, log_scale = core_ops.decoder_backward(
        c.core, parameters, c.memory.core, c.y, c.index, c.h0, c.c0, c.between, c.within, dreadout, dweights, written
    )
    dy = apply(dy, c.mask)
    ops.embedding_backward(dy, c.ids, config.target_size, out=gradients["target_embedding"])
    if callback is not None:
        dvalues = callback.finish(c.memory.rows, c.memory.keys, own)
    elif c.memory.keys is not None:
        more = setting.scoring.keys_backward(
            KeysGradient(
                p.group("attention"), c.memory.rows, c.memory.keys, dkeys, log_scale, own, setting.sizes, into, dvalues
            )
        )
        if more is not None:
            dvalues += more
    return dvalues, initial_states_backward(p, dh0, dc0, c.states, gradients)
