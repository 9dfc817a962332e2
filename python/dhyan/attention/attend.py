"""Attention on arrays without parameters: `attend`, one call that scores, normalises and reads."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from dhyan import ops
from dhyan.checks import check_lengths
from dhyan.errors import unknown_name
from dhyan.ops import devices

from .scoring import unit_vectors
from .scorings import scorings
from .windows import Window, ranges

Shape = tuple[int, ...]
PARAMETERLESS = ("dot", "scaled_dot", "cosine")


class Read(NamedTuple):
    """What attention gives: context (..., D) and the weights (..., S) that made it (None where not asked for)."""

    context: np.ndarray
    weights: Any


def attend(
    query: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray | None = None,
    *,
    score: str = "dot",
    lengths: np.ndarray | int | None = None,
    mask: np.ndarray | None = None,
    window: Window | None = None,
    causal: bool = False,
    scale: float | None = None,
    position: int = 0,
    stream: int | None = None,
) -> Read:
    """context = softmax(scale * score(query, keys)) @ values, every query looking back at every key.

        dot          q . k                    (Luong 2015)
        scaled_dot   q . k / sqrt(H)          (Vaswani 2017)
        cosine       q . k / (|q| |k|)        (Graves 2014); a zero vector scores 0

    query (B, T, H), keys (B, S, H), values (B, S, D), keys if None; or all without B; or one query (H,) with (S, H).
    Results have the matching rank. A value of `scale` replaces 1 (scaled_dot: H**-0.5). What may be attended:

    * lengths (B,) int64: the first lengths[b] positions;
    * mask, bool, broadcastable to (B, T, S): True = may be attended; not together with lengths;
    * window: |s - min(t + position, length - 1)| <= radius;
    * causal: row t sees s <= t + S - T, S the sentence's own length; T > S leaves the first rows empty.

    They combine by and. A row with nothing to attend gives zero weights and a zero context. `position` is the target
    position of row 0 (decoding step by step). Errors: TypeError for dtypes, ValueError for shapes and values.
    CUDA arrays give CUDA arrays of the same library, in the order of `stream` (see :mod:`dhyan.ops`).
    """
    if score not in PARAMETERLESS:
        if score in scorings():
            raise ValueError(f"attend: score {score!r} has parameters or no query, expected one of {PARAMETERLESS}")
        raise unknown_name("attend: score", score, PARAMETERLESS)
    if devices.on_device(query):
        return _attend_on_device(query, keys, values, score, lengths, mask, window, causal, scale, position, stream)
    q, k = _array(query, "query"), _array(keys, "keys")
    v = k if values is None else _array(values, "values")
    rank = _rank(q.shape, k.shape, v.shape)
    if rank < 3:
        q, k, v = q[None] if rank == 2 else q[None, None], k[None], v[None]
        lengths = np.array([lengths], np.int64) if isinstance(lengths, int | np.integer) else lengths
    _match(q.shape, k.shape, v.shape)
    factor = _scale(score, scale, q.shape[2])
    if score == "cosine":
        q, k = unit_vectors(q), unit_vectors(k)
    begin, end = _ranges(q.shape, k.shape, lengths, mask, window, causal, position)
    context, weights, _ = ops.attention_forward(q, k, v, term="product", scale=factor, begin=begin, end=end, mask=mask)
    assert weights is not None  # need_weights is True
    if rank == 1:
        return Read(context[0, 0], weights[0, 0])
    return Read(context[0], weights[0]) if rank == 2 else Read(context, weights)


def _attend_on_device(
    query: Any,
    keys: Any,
    values: Any,
    score: str,
    lengths: Any,
    mask: Any,
    window: Window | None,
    causal: bool,
    scale: float | None,
    position: int,
    stream: int | None,
) -> Read:
    """The same on CUDA arrays: shapes and ranges are made here, on the CPU."""
    q, k = devices.View("attend", "query", query, stream), devices.View("attend", "keys", keys, stream)
    v = devices.View("attend", "values", keys if values is None else values, stream)
    rank = _rank(q.shape, k.shape, v.shape)
    if rank < 3:
        q.reshape((1,) * (3 - rank) + q.shape)
        k.reshape((1, *k.shape))
        v.reshape((1, *v.shape))
        lengths = np.array([lengths], np.int64) if isinstance(lengths, int | np.integer) else lengths
    _match(q.shape, k.shape, v.shape)
    factor = _scale(score, scale, q.shape[2])
    if score == "cosine":
        q.unit_rows()
        k.unit_rows()
    if devices.on_device(lengths):
        lengths = devices.to_host("attend", "lengths", lengths, stream)
    begin, end = _ranges(q.shape, k.shape, lengths, mask, window, causal, position)
    return Read(*devices.attend(q, k, v, factor, begin, end, mask, 3 - rank))


def _rank(q: Shape, k: Shape, v: Shape) -> int:
    """The number of axes of the query, or a ValueError."""
    rank = len(q)
    if rank not in (1, 2, 3) or len(k) != max(rank, 2) or len(v) != len(k):
        raise ValueError(
            f"attend: query, keys and values have shapes {q}, {k} and {v}, expected "
            "(B, T, H), (B, S, H), (B, S, D), or the same without B, or (H,), (S, H), (S, D)"
        )
    return rank


def _match(q: Shape, k: Shape, v: Shape) -> None:
    if q[2] != k[2] or q[0] != k[0] or k[:2] != v[:2]:
        raise ValueError(
            f"attend: query, keys and values have shapes {q}, {k} and {v} as (B, rows, width), "
            "expected equal B, equal S of keys and values, equal H of query and keys"
        )


def _array(value: Any, name: str) -> np.ndarray:
    """CPU arrays of other libraries through DLPack, without a copy. TypeError for what is not an array."""
    if not isinstance(value, np.ndarray) and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value)
    if isinstance(value, np.ndarray):
        if value.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"attend: {name} has dtype {value.dtype}, expected float32 or float64")
        return value
    raise TypeError(f"attend: {name} is of type {type(value).__name__}, expected a float32 or float64 array")


def _scale(score: str, scale: float | None, H: int) -> float:
    if scale is None:
        return H**-0.5 if score == "scaled_dot" and H else 1.0
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(f"attend: scale is of type {type(scale).__name__}, expected a number")
    if not math.isfinite(scale):
        raise ValueError(f"attend: scale is {scale}, expected a finite number")
    return float(scale)


def _ranges(
    q: Shape,
    k: Shape,
    lengths: Any,
    mask: Any,
    window: Window | None,
    causal: bool,
    position: int,
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The half-open range (B, T) that lengths, window and causal leave; None for no restriction."""
    if window is not None and not isinstance(window, Window):
        raise TypeError(f"attend: window is of type {type(window).__name__}, expected dhyan.Window")
    length = checked_lengths("attend", q[0], k[1], lengths, mask, position)
    if lengths is None and window is None and not causal:
        return None, None
    return ranges(length, q[1], k[1], window=window, causal=causal, position=position)


def checked_lengths(op: str, B: int, S: int, lengths: Any, mask: Any, position: Any) -> np.ndarray:
    """The sentences' lengths (B,), checked; S without lengths."""
    if lengths is not None and mask is not None:
        raise ValueError(f"{op}: lengths and mask are both given, expected one of them")
    if isinstance(position, bool) or not isinstance(position, int | np.integer):
        raise TypeError(f"{op}: position is of type {type(position).__name__}, expected an integer")
    if position < 0:
        raise ValueError(f"{op}: position is {position}, expected at least 0")
    if lengths is None:
        return np.full(B, S, np.int64)
    check_lengths(op, lengths, B, S)
    return lengths
