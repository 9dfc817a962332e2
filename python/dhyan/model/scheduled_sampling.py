"""Scheduled sampling: now and then the decoder reads what the model would have written (Bengio et al. 2015).

In training a decoder reads the reference, in translation its own output; so it never learned to go on after a mistake.
Here that is two passes over whole sentences (parallel scheduled sampling, Mihaylova & Martins 2019): the first reads
the reference; then each token but a sentence's first is, with probability `rate`, replaced by the likeliest one that
the first pass would have written there; the second pass reads the mixture, and the loss is its. Both see the same
dropout masks and one encoder pass. What is chosen, by a model that copies from its vocabulary alone, has no gradient.
It costs one more pass of the decoder, forward only.
"""

from __future__ import annotations

import numpy as np

from dhyan import ops

from .arrays import Arrays
from .config import ModelConfig
from .decoder import Memory, decoder_forward
from .dropout import Dropout, apply

_LOGITS = 1 << 22  # most of them at a time


def mixed_tokens(
    config: ModelConfig,
    p: Arrays,
    memory: Memory,
    final: np.ndarray,
    read: np.ndarray,
    steps: np.ndarray,
    dropout: Dropout,
    rate: float,
) -> np.ndarray:
    """Tokens (N,) for the second pass; read (N,) those of the reference, steps (B,) of each sentence.

    Which are replaced is a function of (seed, step). Errors: ValueError without a step and for rates outside [0, 1).
    """
    if dropout.step is None:
        raise ValueError(f"Seq2Seq.forward: scheduled_sampling is {rate} without a step, which chooses what is sampled")
    if not 0 <= rate < 1:
        raise ValueError(f"Seq2Seq.forward: scheduled_sampling is {rate}, expected 0 <= scheduled_sampling < 1")
    kept = dropout.mask("scheduled sampling", read.shape, rate)
    if kept is None:
        return read
    chosen = kept == 0
    chosen[(np.cumsum(steps) - steps)[steps > 0]] = False  # the begin symbol
    places = np.flatnonzero(chosen)
    if not len(places):
        return read
    readout, _, _ = decoder_forward(config, p, memory, final, read, steps, dropout)
    readout = apply(readout, dropout.rows("readout", steps, config.embedding))
    mixed = read.copy()
    mixed[places] = _likeliest(readout[places - 1], p["output.weight"], p["output.bias"])
    return mixed


def _likeliest(readout: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The id of each row's largest logit, of equals the lowest."""
    rows = max(1, _LOGITS // w.shape[1])
    parts = [ops.linear_forward(readout[i : i + rows], w, b).argmax(1) for i in range(0, len(readout), rows)]
    return np.concatenate(parts)
