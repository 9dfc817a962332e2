"""Errors of exp and tanh in units of the last place, as the tests measure them."""

from __future__ import annotations

import numpy as np

EXP_GATE = 1.0
TANH_GATE = 1.5


def finite_floats(first: int, last: int, step: int) -> np.ndarray:
    """The finite float32 whose bit patterns are first, first + step, ... below last."""
    x = np.arange(first, last, step, dtype=np.uint64).astype(np.uint32).view(np.float32)
    return x[np.isfinite(x)]


def ulp_error(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| over the spacing of float32 at exact (2^-149 among subnormals)."""
    exponent = np.floor(np.log2(np.maximum(np.abs(exact), 2.0**-126)))
    return np.abs(y.astype(np.float64) - exact) / np.exp2(exponent - 23)
