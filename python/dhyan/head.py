"""One head: score, normalise, weigh, read; and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ops
from .predictive import Centre
from .windows import Restriction


@dataclass(frozen=True, eq=False)
class HeadInputs:
    """A head's slices of projected query (B, T, U), keys (B, S, U), values (B, S, D) and w (U), and what restricts it.

    The monotonic normaliser also reads `threshold`, added to the scores, `noise` (B, T, S) and `previous` (B, S), the
    alignment before row 0.
    """

    normalize: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    w: np.ndarray | None  # None: product scores
    scale: float
    may: Restriction
    centre: Centre | None = None
    threshold: np.ndarray | None = None
    noise: np.ndarray | None = None
    previous: np.ndarray | None = None

    @property
    def term(self) -> Any:
        """The core's name of the formula."""
        return "product" if self.w is None else "tanh"

    @property
    def where(self) -> dict[str, Any]:
        """What may be attended, as the ops take it."""
        return {"begin": self.may.begin, "end": self.may.end, "mask": self.may.mask}


@dataclass(frozen=True, eq=False)
class HeadCache:
    """What head_backward reads."""

    inputs: HeadInputs
    weights: np.ndarray | None
    fused: ops.AttentionCache | None = None
    scores: np.ndarray | None = None
    normal: np.ndarray | None = None  # weights before the Gaussian


@dataclass(frozen=True, eq=False)
class HeadGradients:
    """Gradients of the inputs; centre (B, T) and threshold are 0, previous and w None, where there is none."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    w: np.ndarray | None
    previous: np.ndarray | None = None
    threshold: float = 0.0
    centre: np.ndarray | float = 0.0


def head_forward(x: HeadInputs, *, hard: bool = False, need_weights: bool = True) -> tuple[np.ndarray, HeadCache]:
    """context (B, T, D); the weights (B, T, S) are in the cache, None where nobody needs them."""
    if x.normalize == "softmax" and x.centre is None:
        context, weights, fused = ops.attention_forward(
            x.q, x.k, x.v, x.w, term=x.term, scale=x.scale, need_weights=need_weights, **x.where
        )
        return context, HeadCache(x, weights, fused)
    scores = ops.score_forward(x.q, x.k, x.w, term=x.term, scale=x.scale)
    if x.normalize == "monotonic":
        scores = scores + x.threshold
        if x.noise is not None:
            scores = scores + x.noise
        normal = ops.monotonic_forward(scores, previous=x.previous, hard=hard, **x.where)
    elif x.normalize == "sparsemax":
        normal = ops.sparsemax_forward(scores, **x.where)
    else:
        normal = ops.softmax_forward(scores, **x.where)
    weights = normal if x.centre is None else normal * x.centre.gaussian
    return ops.context_forward(weights, x.v), HeadCache(x, weights, None, scores, normal)


def _exact_sum(x: np.ndarray) -> float:
    """The sum, rounded once; NaN or infinity where it is no finite number."""
    try:
        return math.fsum(x)
    except (OverflowError, ValueError):
        return float(x.sum())


def head_backward(cache: HeadCache, dcontext: np.ndarray, dweights: np.ndarray | None) -> HeadGradients:
    """Gradients from dcontext (B, T, D) and dweights (B, T, S) or None."""
    x = cache.inputs
    if cache.fused is not None:
        return HeadGradients(*ops.attention_backward(dcontext, cache.fused, dweights))
    assert cache.weights is not None and cache.normal is not None and cache.scores is not None
    dfinal, dv = ops.context_backward(dcontext, cache.weights, x.v)
    if dweights is not None:
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf where a mask hides the value: not looked at
            dfinal += dweights
    dcentre: np.ndarray | float = 0.0
    if x.centre is not None:
        # Where a weight is 0 nothing may be looked at: the value there may be hidden by a mask.
        seen = np.where(cache.normal > 0, dfinal, 0)
        # Added position by position: the order of NumPy's own sum depends on the padding.
        dcentre = np.cumsum(seen * cache.weights * x.centre.slope, 2)[:, :, -1:].sum(2)
        dfinal = seen * x.centre.gaussian
    dprevious, dthreshold = None, 0.0
    if x.normalize == "monotonic":
        dscores, dprevious = ops.monotonic_backward(dfinal, cache.scores, cache.normal, previous=x.previous, **x.where)
        # Position by position, then exactly, for the same reason.
        with np.errstate(invalid="ignore", over="ignore"):  # infinite gradients of both signs: NaN, as in dscores
            dthreshold = _exact_sum(dscores.sum((0, 1), dtype=np.float64))
    elif x.normalize == "sparsemax":
        dscores = ops.sparsemax_backward(dfinal, cache.normal)
    else:
        dscores = ops.softmax_backward(dfinal, cache.normal)
    dq, dk, dw = ops.score_backward(dscores, x.q, x.k, x.w, term=x.term, scale=x.scale)
    return HeadGradients(dq, dk, dv, dw, dprevious, dthreshold, dcentre)
