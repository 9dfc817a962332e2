"""Source tokens -> memory: embedding and stacked recurrent layers, one direction or both.

Everything works on rows: the tokens of all sentences one after another, N_s = sum of the source lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dhyan import ops
from dhyan.checks import check_ids

from .arrays import Arrays, Parameter, under
from .cells import CELLS
from .config import ModelConfig
from .dropout import Dropout, apply


@dataclass(frozen=True)
class _Layer:
    cache: ops.RecurrentCache | ops.BidirectionalCache  # it holds the masks of the state
    mask: np.ndarray | None


@dataclass(frozen=True)
class EncoderCache:
    """What encoder_backward reads."""

    ids: np.ndarray | None  # of the rows that layer 0 read; None for feature vectors
    mask: np.ndarray | None
    layers: list[_Layer]


def _directions(config: ModelConfig) -> tuple[str, ...]:
    return ("forward", "backward") if config.bidirectional else ("forward",)


def encoder_parameters(config: ModelConfig) -> Iterator[Parameter]:
    """encoder.LAYER.DIRECTION.NAME of its cells; the embedding is the model's."""
    cell, width = CELLS.find(config.cell), config.embedding if config.source == "tokens" else config.source_size
    for layer in range(config.layers):
        for direction in _directions(config):
            own = cell.parameters(width, config.hidden, layer_norm=config.layer_norm)
            yield from under(f"encoder.{layer}.{direction}", own)
        width = config.memory_size


def encoder_forward(
    config: ModelConfig, p: Arrays, source: np.ndarray, lengths: np.ndarray, dropout: Dropout
) -> tuple[np.ndarray, np.ndarray, EncoderCache]:
    """memory (N_s, D), the final state (B, H) that starts the decoder, cache. source (B, S) ids or (B, S, F).

    config.residual: from the second layer on, what a layer reads is added to its output (He 2016, Wu 2016).
    """
    valid = ops.tokens_mask(lengths, source.shape[:2], "Seq2Seq")
    ids = index = None
    if config.source == "tokens":
        ids = source[valid]
        if ids.size and (ids.min() < 0 or ids.max() >= config.source_size):
            check_ids("Seq2Seq", "source", np.where(valid, source, 0), config.source_size)
        mask = dropout.embedded("source embedding", ids, config.source_size, lengths, config.embedding)
        if mask is None and (once := ops.distinct(ids, config.source_size)):
            ids, index = once
        rows = ops.embedding_forward(p["source_embedding"], ids)
    else:
        rows = source[valid]
        mask = dropout.rows("source embedding", lengths, rows.shape[1])
    rows = apply(rows, mask)
    layers: list[_Layer] = []
    final = rows
    for number in range(config.layers):
        weights = [p.group(f"encoder.{number}.{direction}") for direction in _directions(config)]
        within = [
            dropout.state(f"encoder {number} {direction}", (len(lengths), config.hidden))
            for direction in _directions(config)
        ]
        cache: ops.RecurrentCache | ops.BidirectionalCache
        if config.bidirectional:
            output, (_, final), cache = ops.bidirectional_rows_forward(
                rows,
                lengths,
                (weights[0], weights[1]),
                cell=config.cell,
                state_masks=(within[0], within[1]),
                index=index,
            )
        else:
            output, final, _, cache = ops.recurrent_rows_forward(
                rows, lengths, weights[0], cell=config.cell, state_mask=within[0], index=index
            )
        layer_mask = dropout.rows(f"encoder {number}", lengths, output.shape[1])
        output = apply(output, layer_mask)
        rows = rows + output if config.residual and number else output
        index = None  # from here on every token is a row
        layers.append(_Layer(cache, layer_mask))
    return rows, final, EncoderCache(ids, mask, layers)


def encoder_backward(
    config: ModelConfig, p: Arrays, dmemory: np.ndarray, dfinal: np.ndarray, cache: EncoderCache, gradients: Arrays
) -> None:
    """Writes the encoder's gradients; dmemory (N_s, D), dfinal (B, H)."""
    drows = dmemory
    tokens = config.source == "tokens"
    for number in reversed(range(config.layers)):
        layer = cache.layers[number]
        dpassed = drows if config.residual and number else None
        drows = apply(drows, layer.mask)
        top = number == config.layers - 1
        written = [gradients.group(f"encoder.{number}.{direction}") for direction in _directions(config)]
        ended = dfinal if top else None
        wants_dx = number > 0 or tokens
        if isinstance(layer.cache, ops.BidirectionalCache):
            dinput = ops.bidirectional_rows_backward(
                drows, layer.cache, (None, ended), gradients=(written[0], written[1]), wants_dx=wants_dx
            )
        else:
            dinput, *_ = ops.recurrent_rows_backward(drows, layer.cache, ended, gradients=written[0], wants_dx=wants_dx)
        drows = dinput if dinput is not None else drows
        if dpassed is not None:
            drows = drows + dpassed
    if tokens:
        assert cache.ids is not None
        drows = apply(drows, cache.mask)
        ops.embedding_backward(drows, cache.ids, config.source_size, out=gradients["source_embedding"])
