"""The output layer with its cross entropy, on arrays: forward, backward, and both in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dhyan import _core


@dataclass(frozen=True)
class LossCache:
    """What cross_entropy_backward reads; it may be used again and gives the same bits.

    log_p (N): log p[n, target_n], 0 for a row that is left out.
    """

    r: np.ndarray
    w: np.ndarray
    b: np.ndarray
    targets: np.ndarray
    smoothing: float
    log_sums: np.ndarray
    log_p: np.ndarray
    logits: np.ndarray | None


# Above this many logits they are computed again in backward instead of kept: a quarter more products, bounded memory.
KEPT_LOGITS = 1 << 25


def cross_entropy_forward(
    r: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    targets: np.ndarray,
    *,
    smoothing: float = 0.0,
    keep_logits: bool | None = None,
) -> tuple[float, LossCache]:
    """Output layer and loss as one op: the sum over rows of the negative log-likelihood, in nats.

        logits = r @ w + b;   loss = sum_n -((1 - smoothing) log p[n, target_n] + smoothing / V sum_v log p[n, v])

    r (N, E), w (E, V), b (V), targets (N,) int64; a negative target leaves its row out. keep_logits=False is the
    low-memory mode: nothing of size N * V exists in either pass; None decides by size. Both give the same bits.
    Errors: IndexError for a target >= V, ValueError for shapes and smoothing outside [0, 1).
    """
    keep = r.shape[0] * w.shape[1] <= KEPT_LOGITS if keep_logits is None else keep_logits
    loss, log_sums, log_p, logits = _core.cross_entropy_forward(r, w, b, targets, smoothing, keep)
    return loss, LossCache(r, w, b, targets, smoothing, log_sums, log_p, logits)


def cross_entropy_backward(
    scale: float,
    cache: LossCache,
    *,
    shares: np.ndarray | None = None,
    dw: np.ndarray | None = None,
    db: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dr, dw, db) of scale * loss. dw, db: arrays to write to, made here if None.

    shares (N), at least 0: factors of log p[n, target_n] in the loss, as if it were
    sum_n -((1 - smoothing) shares_n log p[n, target_n] + smoothing / V sum_v log p[n, v]); None is 1 for all.
    """
    c = cache
    dw = np.empty(c.w.shape, c.w.dtype) if dw is None else dw
    db = np.empty(c.b.shape, c.b.dtype) if db is None else db
    dr = _core.cross_entropy_backward(
        scale, c.r, c.w, c.b, c.targets, c.smoothing, c.log_sums, c.logits, shares, dw, db
    )
    return dr, dw, db


def cross_entropy_both(
    scale: float,
    r: np.ndarray,
    w: np.ndarray,
    b: np.ndarray,
    targets: np.ndarray,
    *,
    smoothing: float = 0.0,
    dw: np.ndarray | None = None,
    db: np.ndarray | None = None,
) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """(loss, dr, dw, db): cross_entropy_forward and the backward of scale * loss in one pass, with the same bits.

    Logits live a tile at a time, and are turned into their gradient while they are in the cache.
    """
    dw = np.empty(w.shape, w.dtype) if dw is None else dw
    db = np.empty(b.shape, b.dtype) if db is None else db
    loss, dr = _core.cross_entropy_both(scale, r, w, b, targets, smoothing, dw, db)
    return loss, dr, dw, db
