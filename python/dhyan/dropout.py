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
        text = f"{self.seed} {self.step} {site}".encode()
        key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        return ops.dropout_mask(shape, self.rate, key, self.dtype)


def apply(x: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """x * mask, or x itself without one."""
    return x if mask is None else x * mask
