"""Layers on arrays: embedding, linear, recurrent. One function an op, one call of the core.

Forward returns its output (and a cache where backward needs one); backward returns gradients, overwriting, never
accumulating. Leading axes named ... may be any number. Weights are (in, out): y = x @ w + b.

Padding never enters a product: functions named `*_rows` take the tokens of all sentences one after another, (N, ...)
with N = sum of the lengths.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhyan import _core
from dhyan.checks import check_dtype, check_lengths

CELLS = ("rnn", "lstm", "gru")
CELL_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
CELL_GAINS = ("gain_ih", "gain_hh")  # with layer normalisation
GATES = {"rnn": 1, "lstm": 4, "gru": 3}


def cell_arrays(group: Mapping[str, np.ndarray]) -> _core.CellArrays:
    """A cell's parameters, or the arrays of their gradients, as the core takes them; gains where there are any."""
    return _core.CellArrays(
        **{name: group[name] for name in (*CELL_PARAMETERS, *CELL_GAINS) if name in group or name in CELL_PARAMETERS}
    )


def embedding_forward(table: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Rows of table (V, E) at ids (...) int64 -> (..., E). IndexError for an id outside 0 <= id < V."""
    flat = _flat_ids("embedding_forward", ids)
    try:
        rows = _core.embedding_forward(table, flat)
    except IndexError:
        raise _id_error("embedding_forward", flat.reshape(np.shape(ids)), len(table)) from None
    return rows.reshape(*np.shape(ids), table.shape[1])


def embedding_backward(dout: np.ndarray, ids: np.ndarray, V: int, *, out: np.ndarray | None = None) -> np.ndarray:
    """dtable (V, E): the rows of dout (..., E) added at their ids (...), in the order of the ids. out: written to."""
    flat = _flat_ids("embedding_backward", ids)
    if V < 0:
        raise ValueError(f"embedding_backward: V is {V}, expected at least 0")
    table = np.empty((V, np.shape(dout)[-1]), dout.dtype) if out is None else out
    try:
        _core.embedding_backward(np.reshape(dout, (flat.size, np.shape(dout)[-1])), flat, table)
    except IndexError:
        raise _id_error("embedding_backward", flat.reshape(np.shape(ids)), V) from None
    return table


def _flat_ids(op: str, ids: object) -> np.ndarray:
    check_dtype(op, "ids", ids, np.int64)
    assert isinstance(ids, np.ndarray)
    return ids.flatten()  # a copy: what is refused is named as it was


def distinct(ids: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(kept, index) with kept[index] = ids (N,) and kept ascending, where at least one in sixteen repeats.

    What is computed of an embedded token is then computed once for all tokens of its id. None too for an id outside
    0 <= id < size, which the lookup refuses.
    """
    if ids.size == 0 or ids.min() < 0 or ids.max() >= size:
        return None
    seen = np.zeros(size, bool)
    seen[ids] = True
    kept = np.flatnonzero(seen)
    if 16 * kept.size > 15 * ids.size:
        return None
    return kept, (np.cumsum(seen) - 1)[ids]


def _id_error(op: str, ids: np.ndarray, V: int) -> IndexError:
    ids = np.asarray(ids)
    position = tuple(int(i) for i in np.argwhere((ids < 0) | (ids >= V))[0])
    return IndexError(f"{op}: the id at {position} is {ids[position]}, expected 0 <= id < {V}")


def _rows(x: np.ndarray) -> np.ndarray:
    """x (..., I) as (M, I), also where I is 0."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def linear_forward(x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """y (..., O) = x (..., I) @ w (I, O) + b (O). A row's bits do not depend on the rows beside it."""
    rows = _rows(x)
    return _core.linear_forward(rows, w, b).reshape(*x.shape[:-1], w.shape[-1])


def linear_backward(
    dy: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    *,
    dw: np.ndarray | None = None,
    db: np.ndarray | None = None,
    add_to: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dx, dw, db) of y = x @ w + b: dx = dy w^T, dw = x^T dy, db = the sum of dy over all leading axes.

    dw, db: arrays to write to, made here if None. add_to (M, I): an array that dx is added to, returned in its place.
    ValueError where one of the three shares memory with another array of the call.
    """
    rows = _rows(x)
    dw = np.empty(w.shape, w.dtype) if dw is None else dw
    db = np.empty(w.shape[1:], w.dtype) if db is None else db
    dx = _core.linear_backward(dy.reshape(rows.shape[0], dy.shape[-1]), rows, w, dw, db, add_to)
    return dx.reshape(x.shape), dw, db


@dataclass(frozen=True)
class RecurrentCache:
    """What recurrent_backward reads; it may be used again and gives the same bits."""

    core: Any
    x: np.ndarray
    valid: np.ndarray | None  # (B, S), True on tokens; None for the row form
    parameters: _core.CellArrays
    h0: np.ndarray | None
    c0: np.ndarray | None
    state_mask: np.ndarray | None = None
    index: np.ndarray | None = None


def recurrent_rows_forward(
    x: np.ndarray,
    lengths: np.ndarray,
    parameters: Mapping[str, np.ndarray],
    *,
    cell: str,
    reverse: bool = False,
    h0: np.ndarray | None = None,
    c0: np.ndarray | None = None,
    state_mask: np.ndarray | None = None,
    index: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, RecurrentCache]:
    """recurrent_forward on rows: x (N, I) holds the tokens of all sentences one after another -> output (N, H).

    index (N,): token n is row index[n] of x (R, I), which meets the weights once; the bits are those of x[index].
    """
    weights = cell_arrays(parameters)
    output, final_h, final_c, core = _core.recurrent_forward(
        cell, reverse, x, index, lengths, weights, h0, c0, state_mask
    )
    return output, final_h, final_c, RecurrentCache(core, x, None, weights, h0, c0, state_mask, index)


def recurrent_forward(
    x: np.ndarray,
    lengths: np.ndarray,
    parameters: Mapping[str, np.ndarray],
    *,
    cell: str,
    reverse: bool = False,
    h0: np.ndarray | None = None,
    c0: np.ndarray | None = None,
    state_mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, RecurrentCache]:
    """One recurrent layer over whole sequences -> (output (B, S, H), final h (B, H), final c (B, H) or None, cache).

    x (B, S, I); lengths (B,) int64; parameters weight_ih (I, G*H), weight_hh (H, G*H), bias_ih, bias_hh (G*H);
    h0, c0 (B, H), zeros if None. Gates as in PyTorch and cuDNN:

        rnn   h' = tanh(x W_ih + b_ih + h W_hh + b_hh)                                            G = 1
        lstm  i, f, o = sigmoid, g = tanh of the same; c' = f c + i g; h' = o tanh(c')            G = 4: i f g o
        gru   r, z = sigmoid; n = tanh(x_n + r (h W_hh + b_hh)_n); h' = (1 - z) n + z h           G = 3: r z n

    With gain_ih, gain_hh (G*H) too the sums x W_ih and h W_hh are normalised, each over all its G*H numbers, before
    their biases are added (Ba et al. 2016): LN(a) = (a - mean) / sqrt(variance + 1e-5) gain + bias.
    state_mask (B, H) or None: h W_hh reads h times the sentence's mask at every step (Gal & Ghahramani 2016).
    `reverse` runs every sentence from its last token to its first. Positions from the length on are not read and
    give 0; a sentence of length 0 ends in its initial state.
    Errors: ValueError for shapes and lengths that disagree, TypeError for dtypes.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"recurrent_forward: x is of type {type(x).__name__}, expected a float32 or float64 array")
    if x.ndim != 3:
        raise ValueError(f"recurrent_forward: x has shape {x.shape}, expected (B, S, I)")
    valid = tokens_mask(lengths, x.shape[:2], "recurrent_forward")
    rows, final_h, final_c, cache = recurrent_rows_forward(
        x[valid], lengths, parameters, cell=cell, reverse=reverse, h0=h0, c0=c0, state_mask=state_mask
    )
    output = np.zeros((*x.shape[:2], rows.shape[1]), rows.dtype)
    output[valid] = rows
    return output, final_h, final_c, RecurrentCache(cache.core, cache.x, valid, cache.parameters, h0, c0, state_mask)


def recurrent_rows_backward(
    doutput: np.ndarray,
    cache: RecurrentCache,
    dfinal_h: np.ndarray | None = None,
    dfinal_c: np.ndarray | None = None,
    *,
    gradients: Mapping[str, np.ndarray] | None = None,
    wants_dx: bool = True,
) -> tuple[np.ndarray | None, dict[str, np.ndarray], np.ndarray | None, np.ndarray | None]:
    """recurrent_backward on rows; gradients: arrays to write into, made here if None. dx is that of the rows of x."""
    if gradients is None:
        shaped = {n: getattr(cache.parameters, n) for n in (*CELL_PARAMETERS, *CELL_GAINS)}
        gradients = {n: np.empty(p.shape, p.dtype) for n, p in shaped.items() if p is not None}
    written = cell_arrays(gradients)
    dx, dh0, dc0 = _core.recurrent_backward(
        cache.core, cache.x, cache.index, cache.parameters, cache.h0, cache.c0, cache.state_mask, doutput, dfinal_h,
        dfinal_c, written, wants_dx,
    )  # fmt: skip
    return dx, dict(gradients), dh0, dc0


def recurrent_backward(
    doutput: np.ndarray,
    cache: RecurrentCache,
    dfinal_h: np.ndarray | None = None,
    dfinal_c: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray | None, np.ndarray | None]:
    """(dx (B, S, I), gradients by parameter name, dh0, dc0) from doutput (B, S, H) and d final states (B, H).

    dh0 and dc0 are None where forward started from zeros. Padding of doutput is not read; padding of dx is 0.
    """
    if cache.valid is None:
        raise ValueError("recurrent_backward: the cache is of the row form, expected one of recurrent_forward")
    rows, gradients, dh0, dc0 = recurrent_rows_backward(doutput[cache.valid], cache, dfinal_h, dfinal_c)
    assert rows is not None
    dx = np.zeros((*cache.valid.shape, rows.shape[1]), rows.dtype)
    dx[cache.valid] = rows
    return dx, gradients, dh0, dc0


@dataclass(frozen=True)
class BidirectionalCache:
    """What bidirectional_rows_backward reads; it may be used again and gives the same bits."""

    core: Any
    x: np.ndarray
    parameters: tuple[_core.CellArrays, _core.CellArrays]
    state_masks: tuple[np.ndarray | None, np.ndarray | None]
    index: np.ndarray | None = None


def bidirectional_rows_forward(
    x: np.ndarray,
    lengths: np.ndarray,
    parameters: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    *,
    cell: str,
    state_masks: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    index: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], BidirectionalCache]:
    """recurrent_rows_forward in both directions at once (Schuster & Paliwal 1997), forward first.

    x (N, I), or x (R, I) and index (N,) -> output (N, 2 H), the two side by side, each one's final h (B, H), cache;
    states start as zeros. The bits are those of two calls.
    """
    weights = (cell_arrays(parameters[0]), cell_arrays(parameters[1]))
    output, final_h, core = _core.bidirectional_forward(cell, x, index, lengths, weights, state_masks)
    return output, final_h, BidirectionalCache(core, x, weights, state_masks, index)


def bidirectional_rows_backward(
    doutput: np.ndarray,
    cache: BidirectionalCache,
    dfinal_h: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
    *,
    gradients: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]],
    wants_dx: bool = True,
) -> np.ndarray | None:
    """dx of the rows of x, the sum over both directions, from doutput (N, 2 H); writes the gradients of both."""
    written = (cell_arrays(gradients[0]), cell_arrays(gradients[1]))
    return _core.bidirectional_backward(
        cache.core, cache.x, cache.index, cache.parameters, cache.state_masks, doutput, dfinal_h, written, wants_dx
    )


def tokens_mask(lengths: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """(B, S) bool, True on the first lengths[b] positions; shape = (B, S). ValueError for lengths outside 0..S."""
    check_lengths(where, lengths, *shape)
    return np.arange(shape[1]) < lengths[:, None]
