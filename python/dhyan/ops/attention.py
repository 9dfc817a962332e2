"""Attention on arrays: scores, normalisers, context, and the three joined; the core's operations under their C++ names.

Attention is here; the ops a model needs besides it (recurrent layers, loss, optimiser) stand beside it in `dhyan.ops`.

Letters: B sentences, T target rows, S source positions, H width of queries and keys, D width of values.
Arrays are float32 or float64, one dtype a call; any stride is read correctly, results are C-contiguous.
A wrong dtype is a TypeError, a wrong shape or value a ValueError; inputs are never written to.

The attention ops also take CUDA arrays (of PyTorch, CuPy, JAX, through DLPack and without a copy) and return arrays
of the same library, in the order of ``stream``: an integer handle, None for the legacy default stream; arrays in CPU
memory ignore it. On the device float16 and bfloat16 are dtypes too: sums are float32 then, and so are scores, weights
and their gradients; contexts and the other gradients have the inputs' dtype. Two calls give the same bits, and a
sentence's results depend on neither its batch nor its padding. ``begin`` and ``end`` may stay in CPU memory; on the
device, looking at their values makes the forward call wait for the stream. In a build without CUDA, or without a
driver, a CUDA array is a RuntimeError; too little device memory a MemoryError. Calls return before the device is done:
an input must stay as it is, and a stream exist, until the work given to the stream has ended; results may be used in
the order of the stream without waiting.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dhyan import _core

from . import devices

Array = npt.NDArray[Any]
Term = Literal["product", "tanh"]


def _number(op: str, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a number")
    return float(value)


def _term(op: str, term: object) -> str:
    if not isinstance(term, str):
        raise TypeError(f"{op}: term is of type {type(term).__name__}, expected 'product' or 'tanh'")
    return term


def score_forward(
    q: Array, k: Array, w: Array | None = None, *, term: Term, scale: float = 1.0, stream: int | None = None
) -> Array:
    """Scores (B, T, S) of every query against every key.

    | ``term="product"``: scale * sum_h q_h k_h (Luong et al. 2015; with scale H**-0.5, Vaswani et al. 2017)
    | ``term="tanh"``:    scale * sum_h w_h tanh(q_h + k_h) (Bahdanau et al. 2014)

    q (B, T, H), k (B, S, H), w (H,) for ``tanh`` only. A score depends on its query and its key alone, to the last bit.
    """
    op = "score_forward"
    return devices.give(q, _core.score_forward(q, k, w, _term(op, term), _number(op, "scale", scale), stream))


def score_backward(
    dscores: Array,
    q: Array,
    k: Array,
    w: Array | None = None,
    *,
    term: Term,
    scale: float = 1.0,
    stream: int | None = None,
) -> tuple[Array, Array, Array | None]:
    """Gradients dq (B, T, H), dk (B, S, H) and dw (H,) of :func:`score_forward`; dw is None for ``product``.

    Where dscores (B, T, S) is exactly 0 its query and key are not looked at.
    """
    op = "score_backward"
    gradients = _core.score_backward(dscores, q, k, w, _term(op, term), _number(op, "scale", scale), stream)
    return devices.give(q, gradients)


def softmax_forward(
    scores: Array,
    *,
    begin: Array | None = None,
    end: Array | None = None,
    mask: Array | None = None,
    stream: int | None = None,
) -> Array:
    """Weights (B, T, S): softmax of each row over the positions it may attend, exactly 0 elsewhere.

    Row t may attend s when ``begin[b, t] <= s < end[b, t]`` and ``mask`` is True there::

        s        0 1 2 3 4 5        begin = 1, end = 5
        range    . x x x x .
        mask     x x . x x x
        weights  0 w 0 w w 0

    begin, end: int64 (B, T), 0 <= begin <= end <= S (ValueError otherwise); mask: bool, broadcastable to (B, T, S).
    A row with nothing to attend, or with scores of -inf only, gets zero weights. NaN stays in its row.
    """
    return devices.give(scores, _core.softmax_forward(scores, begin, end, mask, stream))


def softmax_backward(dweights: Array, weights: Array, *, stream: int | None = None) -> Array:
    """dscores = weights * (dweights - sum_s weights dweights), all (B, T, S).

    Where a weight is 0 the gradient is 0 and dweights is not looked at.
    """
    return devices.give(weights, _core.softmax_backward(dweights, weights, stream))


def sparsemax_forward(
    scores: Array, *, begin: Array | None = None, end: Array | None = None, mask: Array | None = None
) -> Array:
    """Weights (B, T, S): the point of the simplex nearest to a row's scores (Martins and Astudillo 2016).

    weight_s = max(score_s - tau, 0), with the one tau of the row whose weights sum to 1. Unlike softmax it gives most
    positions a weight of exactly 0, and rows that differ by a constant or in scores below tau give the same weights::

        scores     0.9  0.7  0.1  -2.0
        softmax    0.43 0.35 0.19  0.02
        sparsemax  0.6  0.4  0     0        tau = 0.3

    begin, end and mask as in :func:`softmax_forward`, errors and edges too: exactly 0 where a row may not attend, zero
    weights for a row with nothing to attend or with scores of -inf only. A NaN or +inf makes its own row NaN.
    Rows of up to 65,536 positions sum to 1 within 2 eps.
    """
    return _core.sparsemax_forward(scores, begin, end, mask)


def sparsemax_backward(dweights: Array, weights: Array) -> Array:
    """dscores_s = dweights_s - (mean of dweights over the support, the s with weights_s > 0), all (B, T, S).

    Where a weight is 0 the gradient is 0 and dweights is not looked at. At a kink, a score that equals tau, this is the
    derivative of the side on which its weight stays 0.
    """
    return _core.sparsemax_backward(dweights, weights)


def _flag(op: str, name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{op}: {name} is of type {type(value).__name__}, expected a bool")
    return bool(value)


def monotonic_forward(
    scores: Array,
    *,
    previous: Array | None = None,
    hard: bool = False,
    begin: Array | None = None,
    end: Array | None = None,
    mask: Array | None = None,
) -> Array:
    """Weights (B, T, S) of monotonic alignment (Raffel et al. 2017): the chance that row t stops at s.

    Row t starts where row t - 1 stopped, walks to the right, and stops at s with probability p_s = 1 / (1 + e^-score_s)
    where it may attend, 0 elsewhere. With alpha the weights of the row before and r_s the chance of coming by s::

        r_0 = alpha_0        weight_s = p_s r_s        r_{s+1} = (1 - p_s) r_s + alpha_{s+1}

    previous (B, S): the alpha of row 0, for example the last row of an earlier call; None: (1, 0, 0, ...).
    hard: p_s is 1 where score_s > 0 and 0 elsewhere. Then one-hot rows give one-hot rows, as at inference.
    begin, end and mask as in :func:`softmax_forward`: weights are exactly 0 where a row may not attend, it walks past.

    A row sums to at most 1, and to at most what the row before sums to: a walk that stops nowhere ends, in this row and
    all later ones. So a row with nothing to attend gives zero weights, and zero weights to all rows after it.
    A NaN that a row may see reaches its positions from there on, and rows after it; never rows before it or another
    sentence. TypeError unless hard is a bool, ValueError where previous does not match scores.
    """
    op = "monotonic_forward"
    return _core.monotonic_forward(scores, previous, _flag(op, "hard", hard), begin, end, mask)


def monotonic_backward(
    dweights: Array,
    scores: Array,
    weights: Array,
    *,
    previous: Array | None = None,
    begin: Array | None = None,
    end: Array | None = None,
    mask: Array | None = None,
) -> tuple[Array, Array | None]:
    """Gradients dscores (B, T, S) and dprevious (B, S) of :func:`monotonic_forward`; dprevious None where previous is.

    weights: what the forward call gave; the other arguments as given to it. The soft form only: hard decisions have no
    gradient. With d_s all that flows into weight_s of a row, from dweights and from the row after it::

        dr_s = p_s d_s + (1 - p_s) dr_{s+1}        dscore_s = weight_s (1 - p_s) (d_s - dr_{s+1})        dalpha_s = dr_s

    Where a row may not attend, dweights is not looked at and dscores is 0.
    """
    return _core.monotonic_backward(dweights, scores, weights, previous, begin, end, mask)


def context_forward(weights: Array, v: Array, *, stream: int | None = None) -> Array:
    """context (B, T, D) = sum_s weights[b, t, s] v[b, s].

    Values of weight 0 are left out: NaN in a masked value is not seen.
    """
    return devices.give(weights, _core.context_forward(weights, v, stream))


def context_backward(dcontext: Array, weights: Array, v: Array, *, stream: int | None = None) -> tuple[Array, Array]:
    """Gradients dweights (B, T, S) = dcontext . v and dv (B, S, D) = sum_t weights dcontext of the context."""
    return devices.give(weights, _core.context_backward(dcontext, weights, v, stream))


@dataclass(frozen=True)
class AttentionCache:
    """What :func:`attention_backward` reads: the inputs of the forward call, by reference, and its weights if kept."""

    q: Array
    k: Array
    v: Array
    w: Array | None
    term: Term
    scale: float
    begin: Array | None
    end: Array | None
    mask: Array | None
    weights: Array | None


def attention_forward(
    q: Array,
    k: Array,
    v: Array,
    w: Array | None = None,
    *,
    term: Term,
    scale: float = 1.0,
    begin: Array | None = None,
    end: Array | None = None,
    mask: Array | None = None,
    need_weights: bool = True,
    stream: int | None = None,
) -> tuple[Array, Array | None, AttentionCache]:
    """score_forward, softmax_forward and context_forward in one pass: ``context, weights, cache``.

    q (B, T, H), k (B, S, H), v (B, S, D), w (H,) for ``term="tanh"``; begin, end and mask as in
    :func:`softmax_forward`. context (B, T, D), weights (B, T, S).

    Nothing of size B*T*S*H exists in either pass. With ``need_weights=False`` nothing of B*T*S either: weights is None
    and the backward pass computes them again. A row with nothing to attend gives zero weights, zero context and zero
    gradients; what is masked cannot be seen, NaN and infinity included.
    """
    op = "attention_forward"
    number = _number(op, "scale", scale)
    context, weights = devices.give(
        q, _core.attention_forward(q, k, v, w, _term(op, term), number, begin, end, mask, bool(need_weights), stream)
    )
    return context, weights, AttentionCache(q, k, v, w, term, number, begin, end, mask, weights)


def attention_backward(
    dcontext: Array, cache: AttentionCache, dweights: Array | None = None, *, stream: int | None = None
) -> tuple[Array, Array, Array, Array | None]:
    """Gradients dq, dk, dv, dw of :func:`attention_forward`; dw is None for ``term="product"``.

    dcontext (B, T, D); dweights (B, T, S) is a further gradient that flows into the weights (guided alignment,
    coverage loss). A cache may be used again and gives the same bits.
    """
    if not isinstance(cache, AttentionCache):
        raise TypeError(
            f"attention_backward: cache is of type {type(cache).__name__}, expected the cache of attention_forward"
        )
    c = cache
    inputs = (dcontext, dweights, c.q, c.k, c.v, c.w, c.term, c.scale, c.begin, c.end, c.mask, c.weights)
    return devices.give(c.q, _core.attention_backward(*inputs, stream))


def exp_array(x: Array) -> Array:
    """exp of every element of x (N,), by the function inside the kernels: at most 1 ULP off, subnormals included."""
    return _core.exp_array(x)


def tanh_array(x: Array) -> Array:
    """tanh of every element of x (N,), by the function inside the kernels: at most 1.5 ULP off, odd, never above 1."""
    return _core.tanh_array(x)
