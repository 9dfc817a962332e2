"""Dropout masks as a function of (seed, step, site): nothing is drawn in an order, so any step can be made again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from . import model_ops as ops


@dataclass(frozen=True)
class Dropout:
    """The masks of one training step; rate 0 or step None gives none."""

    rate: float
    seed: int
    step: int | None
    dtype: np.dtype

    def mask(self, site: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Inverted-dropout mask of one place in the model, or None."""
        if self.step is None or self.rate == 0:
            return None
        return ops.dropout_mask(shape, self.rate, self._key(site), self.dtype)

    def noise(self, site: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Standard normal noise of one place in the model, or None where step is None."""
        if self.step is None:
            return None
        # Raw words are NumPy's only promise of the same stream in every version: Box and Muller make them normal.
        words = np.random.Philox(key=self._key(site)).random_raw(2 * int(np.prod(shape)))
        u, v = ((words >> np.uint64(11)) * 2.0**-53).reshape(2, -1)
        normal = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)
        return normal.reshape(shape).astype(self.dtype)

    def _key(self, site: str) -> int:
        text = f"{self.seed} {self.step} {site}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def apply(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """x * mask, or x itself without one."""
    return x if mask is None else x * mask
