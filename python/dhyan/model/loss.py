"""Readouts -> loss: the output layer with its cross entropy, and losses on the attention weights themselves (guided by
gold links, and against reading a position twice); with the gradients of all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dhyan import ops
from dhyan.text.vocabulary import UNKNOWN

from .arrays import Arrays, Parameter, linear, under
from .config import ModelConfig
from .copying import copy_backward, copy_forward, copy_loss


def output_parameters(config: ModelConfig) -> Iterator[Parameter]:
    """output.weight (E, V), where no embedding is read as it, output.bias (V)."""
    weight, bias = under("output", linear(config.embedding, config.target_size))
    if config.tie == "none":
        yield weight
    yield bias


class OutputLoss:
    """sum: the loss summed over the rows of readout (N, E) against targets (N,), in nats.

    training: the gradients are made at once, of `sum / N`, while the logits are in the cache; they wait for the first
    `backward`, and a later one makes them again. Otherwise backward is a pass of its own. The bits are the same.
    """

    def __init__(
        self, p: Arrays, readout: np.ndarray, targets: np.ndarray, smoothing: float, *, training: bool
    ) -> None:
        self.p, self.readout, self.targets, self.smoothing = p, readout, targets, smoothing
        self._made: tuple[Arrays, np.ndarray] | None = None
        self._kept: ops.LossCache | None = None
        if training:
            self.sum, self._made = self._both()
        else:
            self.sum, self._kept = ops.cross_entropy_forward(
                readout, p["output.weight"], p["output.bias"], targets, smoothing=smoothing
            )

    @property
    def _scale(self) -> float:
        return 1.0 / max(len(self.targets), 1)

    def _both(self) -> tuple[float, tuple[Arrays, np.ndarray]]:
        p, gradients = self.p, self.p.like()
        total, dreadout, _, _ = ops.cross_entropy_both(
            self._scale, self.readout, p["output.weight"], p["output.bias"], self.targets, smoothing=self.smoothing,
            dw=gradients["output.weight"], db=gradients["output.bias"],
        )  # fmt: skip
        return total, (gradients, dreadout)

    def backward(self) -> tuple[Arrays, np.ndarray, None]:
        """Arrays for all gradients, in which those of the output layer are written; dreadout (N, E); no dweights."""
        if self._kept is None:
            made, self._made = self._made or self._both()[1], None
            return *made, None
        gradients = self.p.like()
        dw, db = gradients["output.weight"], gradients["output.bias"]
        dreadout, _, _ = ops.cross_entropy_backward(self._scale, self._kept, dw=dw, db=db)
        return gradients, dreadout, None


class CopyLoss:
    """OutputLoss of a model that copies: sum, and its gradients also for the gate and the weights (`copying`).

    weights (N, S) of the rows; copies (B, S), -1 beyond the sources, of sentences of steps (B,) rows. targets (N,) may
    be words that only the source has.
    """

    def __init__(
        self,
        p: Arrays,
        readout: np.ndarray,
        weights: np.ndarray,
        copies: np.ndarray,
        steps: np.ndarray,
        targets: np.ndarray,
        smoothing: float,
    ) -> None:
        self.p, self.positions = p, weights.shape[1]
        w, b = p["output.weight"], p["output.bias"]
        known = np.where(targets < w.shape[1], targets, UNKNOWN)
        total, loss = ops.cross_entropy_forward(readout, w, b, known, smoothing=smoothing)
        rows = np.repeat(copies[:, : self.positions], steps, axis=0)
        self.cache = copy_forward(loss, p["copy.weight"], p["copy.bias"], weights, rows, targets)
        self.sum = copy_loss(self.cache, total)

    def backward(self) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """Arrays for all gradients, in which those of output layer and gate are written; dreadout, dweights (N, S)."""
        scale, gradients = 1.0 / max(len(self.cache.log_p), 1), self.p.like()
        dw, db = gradients["copy.weight"], gradients["copy.bias"]
        shares, more, dweights = copy_backward(
            scale, self.cache, self.p["copy.weight"], dw=dw, db=db, positions=self.positions
        )
        dw, db = gradients["output.weight"], gradients["output.bias"]
        dreadout, _, _ = ops.cross_entropy_backward(scale, self.cache.loss, shares=shares, dw=dw, db=db)
        return gradients, dreadout + more, dweights


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
