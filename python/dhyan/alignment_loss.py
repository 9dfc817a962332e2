"""Losses on the attention weights themselves: guided by gold links, and against reading a position twice.

Rows: N = sum of the decoder steps of all sentences, sentence after sentence, as the decoder has them; S source
positions. Sums run in float64, gradients come back in the dtype of the weights, inputs are not changed.
"""

from __future__ import annotations

import numpy as np

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def guided_loss(weights: np.ndarray, alignment: np.ndarray) -> tuple[float, np.ndarray]:
    """(loss, dweights): how far the weights are from the alignment, in nats (Chen et al. 2016, Mi et al. 2016).

        loss = -1/M sum_{t,s} alignment[t, s] log weights[t, s]        M: rows t with a link (alignment not all 0)

    weights, alignment (N, S); alignment >= 0, a row without a link is not asked about. loss 0 and zeros where M = 0.
    Where a link lies on a weight at or below the smallest normal number of its type (0 outside a window or the support
    of sparsemax), its log is that number's, about -87 in float32 and -708 in float64, and its derivative is 0: no
    gradient can reach a weight that was cut away, and neither inf nor NaN comes of it. NaN weights give a loss of NaN.

    Errors: TypeError for other dtypes than float32 and float64, ValueError for shapes that disagree.
    """
    _check("guided_loss", "weights", weights)
    _check("guided_loss", "alignment", alignment)
    if alignment.shape != weights.shape:
        raise ValueError(
            f"guided_loss: alignment has shape {alignment.shape}, expected {weights.shape} to match weights"
        )
    dweights = np.zeros(weights.shape, weights.dtype)
    linked = np.nonzero(alignment)
    if not len(linked[0]):
        return 0.0, dweights
    least = float(np.finfo(weights.dtype).tiny)
    gold, read = alignment[linked].astype(np.float64), weights[linked].astype(np.float64)
    count = len(np.unique(linked[0]))
    loss = -float((gold * np.log(np.maximum(read, least))).sum()) / count
    dweights[linked] = np.where(read > least, -gold / (count * np.maximum(read, least)), 0.0)
    return loss, dweights


def coverage_loss(weights: np.ndarray, steps: np.ndarray) -> tuple[float, np.ndarray]:
    """(loss, dweights): how much is read that was read before (See et al. 2017, eq. 12), per decoder step.

        loss = 1/N sum_t sum_s min(weights[t, s], c[t, s])        c[t, s] = sum_{t' < t} weights[t', s] of its sentence

    weights (N, S), steps (B,) int64: the decoder steps of each sentence, N in all. The smaller of the two takes the
    derivative, of equal ones the weight of the row itself; where both are 0 there is none. 0 and zeros where N = 0.

    Errors: TypeError for other dtypes, ValueError for steps that are negative or do not sum to N.
    """
    _check("coverage_loss", "weights", weights)
    if not isinstance(steps, np.ndarray) or steps.dtype != np.int64:
        raise TypeError(f"coverage_loss: steps is {_kind(steps)}, expected an array of int64")
    if steps.ndim != 1 or steps.min(initial=0) < 0 or int(steps.sum()) != len(weights):
        raise ValueError(
            f"coverage_loss: steps of shape {steps.shape} sum to {int(steps.sum())}, expected (B,), none negative, "
            f"with the sum N={len(weights)} to match weights {weights.shape}"
        )
    first = np.cumsum(steps) - steps
    rows = [first[steps > t] + t for t in range(int(steps.max(initial=0)))]  # of step t, in all sentences that have it
    is_open = [steps > t for t in range(len(rows))]
    is_smaller = np.zeros(weights.shape, bool)  # than the coverage: the derivative is the weight's
    is_larger = np.zeros(weights.shape, bool)  # it is that of the coverage, thus of all rows before
    total, coverage = 0.0, np.zeros((len(steps), weights.shape[1]))
    for row, here in zip(rows, is_open, strict=True):
        now, before = weights[row].astype(np.float64), coverage[here]
        total += float(np.minimum(now, before).sum())
        is_smaller[row], is_larger[row] = (now <= before) & (before > 0), before < now
        coverage[here] = before + now
    dweights, later = np.zeros(weights.shape, weights.dtype), np.zeros(coverage.shape)
    for row, here in zip(reversed(rows), reversed(is_open), strict=True):
        dweights[row] = (is_smaller[row] + later[here]) / len(weights)
        later[here] += is_larger[row]
    return total / max(len(weights), 1), dweights


def _check(where: str, name: str, array: object) -> None:
    if not isinstance(array, np.ndarray) or array.dtype not in _FLOATS:
        raise TypeError(f"{where}: {name} is {_kind(array)}, expected an array of float32 or float64")
    if array.ndim != 2:
        raise ValueError(f"{where}: {name} has shape {array.shape}, expected (N, S)")


def _kind(array: object) -> str:
    return f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
