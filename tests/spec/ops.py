"""Attention in plain NumPy: the specification the kernels are tested against, written for reading.

Letters: B sentences, T target rows, S source positions, H query and key width, D value width. Every function works
for real and complex arrays. A complex step (Squire and Trapp 1998) then gives derivatives without cancellation:
imag(f(x + ih)) / h with h = 1e-30.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]


def score(q: Array, k: Array, w: Array | None, term: str, scale: float = 1.0) -> Array:
    """scores (B, T, S) from q (B, T, H), k (B, S, H), w (H,)."""
    if term == "product":
        return scale * np.einsum("bth,bsh->bts", q, k)
    return scale * np.einsum("h,btsh->bts", w, np.tanh(q[:, :, None, :] + k[:, None, :, :]))


def may_attend(shape: tuple[int, int, int], begin: Array | None, end: Array | None, mask: Array | None) -> Array:
    """The positions (B, T, S) a row may attend."""
    allowed = np.ones(shape, bool)
    s = np.arange(shape[2])
    if begin is not None:
        allowed &= s >= begin[:, :, None]
    if end is not None:
        allowed &= s < end[:, :, None]
    if mask is not None:
        allowed &= mask
    return allowed


def softmax(scores: Array, allowed: Array) -> Array:
    """exp(score) over what is allowed, each row summing to 1; all zeros where nothing is."""
    highest = np.where(allowed, scores.real, -np.inf).max(-1, keepdims=True, initial=-1e30)
    e = np.exp(np.where(allowed, scores - highest, 0)) * allowed
    total = e.sum(-1, keepdims=True)
    return e / np.where(total == 0, 1, total)


def sparsemax(scores: Array, allowed: Array) -> Array:
    """max(score - tau, 0) over what is allowed, tau such that a row sums to 1; all zeros where nothing is.

    The k largest scores are the support, k the largest number with k x_k > (x_1 + ... + x_k) - 1 of the sorted scores
    x_1 >= x_2 >= ... (Martins and Astudillo 2016, algorithm 1).
    """
    weights = np.zeros_like(scores)
    for row in np.ndindex(scores.shape[:2]):
        if allowed[row].any():
            x = scores[row][allowed[row]]
            x = x - x.real.max()
            ordered = x[np.argsort(-x.real)]
            sums, k = np.cumsum(ordered), np.arange(1, len(x) + 1)
            size = k[k * ordered.real > sums.real - 1][-1]
            tau = (sums[size - 1] - 1) / size
            weights[row][allowed[row]] = np.where(x.real > tau.real, x - tau, 0)
    return weights


def monotonic(scores: Array, allowed: Array, previous: Array | None = None, hard: bool = False) -> Array:
    """The chance (B, T, S) that row t, walking right from where row t - 1 stopped, stops at s."""
    p = np.where(scores.real > 0, 1.0, 0.0) if hard else (1 + np.tanh(scores / 2)) / 2
    p = np.where(allowed, p, 0)
    B, T, S = scores.shape
    weights = np.zeros((B, T, S), p.dtype if previous is None else np.result_type(p, previous))
    before = np.broadcast_to(np.arange(S) == 0, (B, S)) * 1.0 if previous is None else previous
    for t in range(T):
        arriving = np.zeros(B)
        for s in range(S):
            arriving = arriving + before[:, s]
            weights[:, t, s] = p[:, t, s] * arriving
            arriving = arriving - weights[:, t, s]
        before = weights[:, t]
    return weights


def context(weights: Array, v: Array) -> Array:
    """context (B, T, D) from weights (B, T, S) and v (B, S, D)."""
    return np.einsum("bts,bsd->btd", weights, v)


def score_backward(
    dscores: Array, q: Array, k: Array, w: Array | None, term: str, scale: float = 1.0
) -> tuple[Array, Array, Array | None]:
    """dq, dk, dw."""
    g = scale * dscores
    if term == "product":
        return np.einsum("bts,bsh->bth", g, k), np.einsum("bts,bth->bsh", g, q), None
    t = np.tanh(q[:, :, None, :] + k[:, None, :, :])
    slope = g[..., None] * w * (1 - t * t)
    return slope.sum(2), slope.sum(1), np.einsum("bts,btsh->h", g, t)


def softmax_backward(dweights: Array, weights: Array) -> Array:
    """dscores."""
    return weights * (dweights - (weights * dweights).sum(-1, keepdims=True))


def sparsemax_backward(dweights: Array, weights: Array) -> Array:
    """dscores."""
    support = weights > 0
    size = np.maximum(support.sum(-1, keepdims=True), 1)
    return support * (dweights - (support * dweights).sum(-1, keepdims=True) / size)


def monotonic_backward(
    dweights: Array, scores: Array, allowed: Array, previous: Array | None = None
) -> tuple[Array, Array]:
    """dscores, and dprevious also where previous is None: the gradient of (1, 0, 0, ...)."""
    p = np.where(allowed, (1 + np.tanh(scores / 2)) / 2, 0)
    weights = monotonic(scores, allowed, previous)
    B, T, S = scores.shape
    dscores, flow = np.zeros((B, T, S)), np.zeros((B, S))
    for t in reversed(range(T)):
        d = dweights[:, t] + flow
        dr = np.zeros(B)  # of the chance of coming by s, from the right to the left
        for s in reversed(range(S)):
            dscores[:, t, s] = weights[:, t, s] * (1 - p[:, t, s]) * (d[:, s] - dr)
            dr = p[:, t, s] * d[:, s] + (1 - p[:, t, s]) * dr
            flow[:, s] = dr
    return dscores, flow


def context_backward(dcontext: Array, weights: Array, v: Array) -> tuple[Array, Array]:
    """dweights, dv."""
    return np.einsum("btd,bsd->bts", dcontext, v), np.einsum("bts,btd->bsd", weights, dcontext)


def attention(
    q: Array, k: Array, v: Array, w: Array | None, term: str, scale: float, allowed: Array
) -> tuple[Array, Array]:
    """context and weights of the joined op."""
    weights = softmax(score(q, k, w, term, scale), allowed)
    return context(weights, v), weights


def attention_backward(
    dcontext: Array,
    dweights: Array | float,
    q: Array,
    k: Array,
    v: Array,
    w: Array | None,
    term: str,
    scale: float,
    allowed: Array,
) -> tuple[Array, Array, Array, Array | None]:
    """dq, dk, dv, dw of the joined op."""
    weights = softmax(score(q, k, w, term, scale), allowed)
    from_context, dv = context_backward(dcontext, weights, v)
    dscores = softmax_backward(from_context + dweights, weights)
    dq, dk, dw = score_backward(dscores, q, k, w, term, scale)
    return dq, dk, dv, dw


def complex_step(f: Callable[..., Array], arguments: Sequence[Array], index: int, h: float = 1e-30) -> Array:
    """d f / d arguments[index] for a real-valued scalar f, one element at a time."""
    gradient = np.zeros(arguments[index].shape)
    for at in np.ndindex(gradient.shape):
        moved = [a.astype(complex) for a in arguments]
        moved[index][at] += 1j * h
        gradient[at] = f(*moved).imag / h
    return gradient
