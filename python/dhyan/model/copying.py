"""Copying from the source: the pointer-generator of See, Liu and Manning 2017, over an extended vocabulary.

    p(w) = p_gen softmax(r W_out + b_out)[w] + (1 - p_gen) sum_{s: copies[s] = w} weights[s]
    p_gen = sigmoid(r w_copy + b_copy)                    r: the readout, which has seen y, s and c

copies (B, S) says what each source token is in target ids (`dhyan.text.copies`). A word that the target vocabulary
lacks has an id of its own in its sentence, V, V + 1, ...: it cannot be generated, but copied. The end symbol the
encoder reads is that of the target. Where the weights of a row sum to less than 1 (windows, monotonic, missing links)
so does p.

A word is copied where its weights sum to at least LEAST. Of a word that can only be copied, less counts as LEAST,
without a gradient to the weights: neither infinity nor NaN comes of a weight that a window or sparsemax made 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dhyan import ops
from dhyan.checks import check_ids
from dhyan.text.vocabulary import UNKNOWN

from .arrays import Parameter, linear, under
from .config import ModelConfig

LEAST = 2.0**-100  # far below any weight that matters, and its inverse still fits float32


def copy_parameters(config: ModelConfig) -> Iterator[Parameter]:
    """copy.weight (E, 1), copy.bias (1): the gate, of a model that copies."""
    return under("copy", linear(config.embedding, 1) if config.copy else ())


def check_copies(copies: object, source: np.ndarray, lengths: np.ndarray, size: int) -> np.ndarray:
    """copies (B, S), -1 beyond the sources. Errors: TypeError, ValueError, IndexError for what they cannot be."""
    if copies is None:
        raise ValueError("Seq2Seq: a model that copies needs copies (B, S), the source tokens as target ids, got none")
    if not isinstance(copies, np.ndarray) or copies.dtype != np.int64:
        got = f"has dtype {copies.dtype}" if isinstance(copies, np.ndarray) else f"is a {type(copies).__name__}"
        raise TypeError(f"Seq2Seq: copies {got}, expected an array of int64 token ids")
    if copies.shape != source.shape:
        raise ValueError(f"Seq2Seq: copies has shape {copies.shape}, expected {source.shape} to match source")
    inside = np.arange(source.shape[1]) < lengths[:, None]
    check_ids("Seq2Seq", "copies", np.where(inside, copies, 0), size + source.shape[1])
    return np.where(inside, copies, -1)


def log_gates(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log p_gen and log(1 - p_gen) in float64 of what the sigmoid gets."""
    x = np.ascontiguousarray(logits.reshape(-1), np.float64)
    return -_log_add(0, -x), -_log_add(0, x)


def _log_add(a: np.ndarray | float, b: np.ndarray) -> np.ndarray:
    """log(e^a + e^b); NaN comes of NaN without a word, as in the core."""
    with np.errstate(invalid="ignore"):
        return np.logaddexp(a, b)


def _log_copied(mass: np.ndarray, is_own: np.ndarray) -> np.ndarray:
    """log of the weights on a word, by the rule of LEAST; NaN stays NaN."""
    log = np.log(np.maximum(mass, LEAST))
    return np.where((mass < LEAST) & ~is_own, -np.inf, log)


@dataclass(frozen=True)
class CopyCache:
    """What copy_backward reads, a row a target token (N): log p[target], p_gen, and the generated share of p."""

    log_p: np.ndarray
    p_gen: np.ndarray
    generated: np.ndarray
    mass: np.ndarray
    matches: tuple[np.ndarray, np.ndarray]  # (row, source position) where the source holds the target
    loss: ops.LossCache


def copy_forward(
    loss: ops.LossCache, w: np.ndarray, b: np.ndarray, weights: np.ndarray, copies: np.ndarray, targets: np.ndarray
) -> CopyCache:
    """The mixture at the targets (N), which may be own words; loss: of the vocabulary alone, with any id for those.

    w (E, 1), b (1): the gate. weights (N, S), copies (N, S): the row's sentence, -1 where nothing is to be copied.
    """
    is_own = targets >= loss.w.shape[1]
    log_generate, log_copy = log_gates(ops.linear_forward(loss.r, w, b))
    rows, places = np.nonzero(copies == targets[:, None])
    # bincount adds in the order of the positions, whatever the padding.
    mass = np.bincount(rows, weights[rows, places], len(targets))
    generated = np.where(is_own, -np.inf, log_generate + loss.log_p)
    log_p = _log_add(generated, log_copy + _log_copied(mass, is_own))
    return CopyCache(log_p, np.exp(log_generate), np.exp(generated - log_p), mass, (rows, places), loss)


def copy_loss(cache: CopyCache, vocabulary_loss: float) -> float:
    """sum_n -((1 - smoothing) log p(target_n) + smoothing / V sum_v log softmax[n, v]); vocabulary_loss: of the op.

    Smoothing is that of the vocabulary's softmax: it says nothing of the gate, nor of the weights. A model that never
    copies has the ordinary loss.
    """
    loss = -float(cache.log_p.sum())
    smoothing = cache.loss.smoothing
    if smoothing:
        even = vocabulary_loss + (1 - smoothing) * float(cache.loss.log_p.sum(dtype=np.float64))
        loss = (1 - smoothing) * loss + even
    return loss


def copy_backward(
    scale: float, cache: CopyCache, w: np.ndarray, *, dw: np.ndarray, db: np.ndarray, positions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(shares, dr, dweights) of scale * copy_loss: what cross_entropy_backward takes, and what comes beside it.

    dw, db: of the gate, written. positions: S of the weights.
    """
    scale *= 1 - cache.loss.smoothing
    dtype = cache.loss.r.dtype
    shares = cache.generated.astype(dtype)
    # d -log p / d logit of p_gen = p_gen - generated
    dgate = (scale * (cache.p_gen - cache.generated)).astype(dtype)[:, None]
    dr, _, _ = ops.linear_backward(dgate, cache.loss.r, w, dw=dw, db=db)
    dweights = np.zeros((len(shares), positions), dtype)
    rows, places = cache.matches
    # d -log p / d weight = -(1 - p_gen) / p = -(1 - generated) / mass
    slope = np.where(cache.mass < LEAST, 0, -scale * (1 - cache.generated) / np.maximum(cache.mass, LEAST))
    dweights[rows, places] = slope[rows]
    return shares, dr, dweights


@dataclass(frozen=True)
class Copier:
    """What turns a decoder's step into one that also copies: the gate, and copies (B, S) of all sentences."""

    w: np.ndarray
    b: np.ndarray
    copies: np.ndarray
    size: int  # V

    @property
    def width(self) -> int:
        """V and the most own words of a sentence."""
        return max(self.size, int(self.copies.max(initial=-1)) + 1)

    def read(self, tokens: np.ndarray) -> np.ndarray:
        """Ids as the decoder knows them: it reads an own word as unknown."""
        return np.where(tokens < self.size, tokens, UNKNOWN)

    def mix(self, log_p: np.ndarray, weights: np.ndarray, readout: np.ndarray, sentence: np.ndarray) -> np.ndarray:
        """log p (N, width) from those of the vocabulary (N, V); -inf for words that are not the sentence's own."""
        log_generate, log_copy = log_gates(ops.linear_forward(readout, self.w, self.b))
        mixed = np.full((len(log_p), self.width), -np.inf, log_p.dtype)
        np.add(log_p, log_generate[:, None], out=mixed[:, : self.size], dtype=np.float64, casting="same_kind")
        copies = self.copies[sentence, : weights.shape[1]]
        rows, places = np.nonzero(copies >= 0)
        cells, which = np.unique(rows * self.width + copies[rows, places], return_inverse=True)
        mass = np.bincount(which.reshape(-1), weights[rows, places], len(cells))
        row, word = np.divmod(cells, self.width)
        flat = mixed.reshape(-1)
        copied = log_copy[row] + _log_copied(mass, word >= self.size)
        before = np.where(word < self.size, log_generate[row] + log_p[row, np.minimum(word, self.size - 1)], -np.inf)
        flat[cells] = _log_add(before, copied)
        return mixed


def largest(log_p: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The min(k, width) largest of each row of (N, width) and their ids, largest first, of equals the lower id."""
    N, width = log_p.shape
    k = min(k, width)
    least = np.partition(log_p, width - k, axis=1)[:, width - k]
    rows, ids = np.nonzero(~(log_p < least[:, None]))  # of equals more than k; NaN is let through
    values = log_p[rows, ids]
    order = np.lexsort((ids, -values, rows))
    rows = rows[order]
    first = order[np.arange(len(rows)) - np.searchsorted(rows, rows) < k]
    return values[first].reshape(N, k), ids[first].reshape(N, k)
