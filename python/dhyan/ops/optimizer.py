"""One step of an optimiser over a flat buffer, and dropout masks that are a function of their place."""

from __future__ import annotations

import numpy as np

from dhyan import _core
from dhyan.errors import NumericError


def adam_step(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    v: np.ndarray,
    *,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    clip: float = 0.0,
) -> float:
    """One Adam step (Kingma & Ba 2015) in place on flat p, m, v (N,), gradients clipped to global norm `clip` first.

        g *= min(1, clip / |g|);  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
        p -= lr (m / (1 - b1^step) / (sqrt(v / (1 - b2^step)) + eps) + weight_decay p)

    clip = 0 does not clip; weight_decay is decoupled (Loshchilov & Hutter 2019). Returns |g| before clipping.
    Errors: NumericError when |g| is not finite; p, m and v are then untouched.
    """
    norm = _core.adam_step(p, g, m, v, step, lr, beta1, beta2, eps, weight_decay, clip)
    if not np.isfinite(norm):
        raise NumericError(f"adam_step: the global norm of the gradient is {norm} at step {step}, expected finite")
    return norm


def penalised_gradient(
    p: np.ndarray, g: np.ndarray, *, weight_decay: float, clip: float = 0.0, step: int = 1
) -> tuple[np.ndarray, float]:
    """(g min(1, clip / |g|) + weight_decay p, |g|): the clipped gradient of a loss with an L2 penalty.

    The sum of squares is double and in one order, whatever the number of threads. clip = 0 does not clip.
    Errors: NumericError when |g| is not finite.
    """
    norm = float(np.sqrt(np.einsum("i,i->", g, g, dtype=np.float64, casting="safe")))
    if not np.isfinite(norm):
        raise NumericError(f"gradient: the global norm is {norm} at step {step}, expected finite")
    d = g * g.dtype.type(clip / norm if 0 < clip < norm else 1.0)
    if weight_decay:
        d += g.dtype.type(weight_decay) * p
    return d, norm


def sgd_step(
    p: np.ndarray,
    g: np.ndarray,
    m: np.ndarray,
    *,
    step: int,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    clip: float = 0.0,
) -> float:
    """One step of gradient descent with momentum (Polyak 1964) in place on flat p, m (N,); returns |g| before clipping.

        m = momentum m + g min(1, clip / |g|) + weight_decay p;   p -= lr m

    clip = 0 does not clip. Errors: NumericError when |g| is not finite; p and m are then untouched.
    """
    d, norm = penalised_gradient(p, g, weight_decay=weight_decay, clip=clip, step=step)
    m *= m.dtype.type(momentum)
    m += d
    p -= np.multiply(p.dtype.type(lr), m, out=d)
    return norm


def dropout_mask(shape: tuple[int, ...], rate: float, key: int, dtype: np.dtype | type) -> np.ndarray:
    """Inverted dropout: 0 with probability rate, else 1 / (1 - rate); a function of (key, position) alone."""
    single = np.dtype(dtype) == np.float32
    return _core.dropout_mask(int(np.prod(shape, dtype=np.int64)), rate, key, single).reshape(shape)
