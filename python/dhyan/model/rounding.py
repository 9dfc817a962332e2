"""Parameters rounded to bfloat16 or to bytes, for decoding with less memory traffic."""

from __future__ import annotations

import numpy as np


def round_to_bfloat16(array: np.ndarray) -> None:
    """float32, in place: to the nearest number with 8 bits of precision, ties to even; NaN and infinities stay."""
    bits = array.view(np.uint32)
    finite = np.isfinite(array)
    odd = (bits >> 16) & 1
    bits[finite] = ((bits + (np.uint32(0x7FFF) + odd)) & np.uint32(0xFFFF0000))[finite]


def round_to_bytes(array: np.ndarray) -> None:
    """float32 (K, N), in place: to the nearest code times 2^e, -127 <= code <= 127, ties to even.

    e is the least a column can do with: where rounding is exact in powers of two, products of codes are those of the
    floats bit for bit. A column with NaN or an infinity stays.
    """
    most = np.abs(array).max(0, initial=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponent = np.ceil(np.log2(most.astype(np.float64) / 127))
    scale = np.where((most > 0) & np.isfinite(most), np.exp2(np.where(np.isfinite(exponent), exponent, 0)), 1)
    scale = scale.astype(np.float32)
    kept = (most > 0) & np.isfinite(most) & (scale > 1e-30)
    array[:, kept] = np.clip(np.rint(array[:, kept] / scale[kept]), -127, 127) * scale[kept]
