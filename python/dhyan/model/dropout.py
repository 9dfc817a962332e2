"""Dropout masks as a function of (seed, step, site): nothing is drawn in an order, so any step can be made again.

Four kinds, each inverted (what is kept is divided by its probability):

    dropout            every value of every token (Srivastava et al. 2014, between layers: Zaremba et al. 2014)
    variational        the same, but one mask a sentence for all its tokens (Gal & Ghahramani 2016)
    recurrent_dropout  of the state that h W_hh reads, one mask a sentence for all its steps (the same)
    embedding_dropout  whole words: a type is dropped at all its places in the batch (the same, section 4.2)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from dhyan import ops

from .config import ModelConfig


@dataclass(frozen=True)
class Dropout:
    """The masks of one training step; rate 0 or step None gives none. variational, recurrent, words: see above."""

    rate: float
    seed: int
    step: int | None
    dtype: np.dtype
    variational: bool = False
    recurrent: float = 0.0
    words: float = 0.0

    @classmethod
    def of(cls, config: ModelConfig, seed: int, step: int | None, dtype: np.dtype) -> Dropout:
        """The masks that a configuration asks for."""
        c = config
        return cls(c.dropout, seed, step, dtype, c.variational, c.recurrent_dropout, c.embedding_dropout)

    def mask(self, site: str, shape: tuple[int, ...], rate: float | None = None) -> np.ndarray | None:
        """Inverted-dropout mask of one place in the model, or None."""
        rate = self.rate if rate is None else rate
        if self.step is None or rate == 0:
            return None
        return ops.dropout_mask(shape, rate, self._key(site), self.dtype)

    def rows(self, site: str, lengths: np.ndarray, width: int, layers: int | None = None) -> np.ndarray | None:
        """The mask (N, width) of the tokens of all sentences, N = sum of lengths (B,); layers: so many of them."""
        first = () if layers is None else (layers,)
        if not self.variational:
            return self.mask(site, (*first, int(lengths.sum()), width))
        made = self.mask(site, (*first, len(lengths), width))
        return None if made is None else np.repeat(made, lengths, axis=-2)

    def embedded(self, site: str, ids: np.ndarray, size: int, lengths: np.ndarray, width: int) -> np.ndarray | None:
        """The mask of embedded tokens ids (N,), (N, width) or (N, 1): that of the values times that of the types."""
        made, types = self.rows(site, lengths, width), self.mask(f"{site}, types", (size, 1), self.words)
        if types is None:
            return made
        return types[ids] if made is None else made * types[ids]

    def state(self, site: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """The mask of what h W_hh reads; shape (..., B, H)."""
        return self.mask(f"{site}, state", shape, self.recurrent)

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
