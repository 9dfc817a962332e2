"""Readouts -> loss: the output layer with its cross entropy, and the gradients of both."""

from __future__ import annotations

import numpy as np

from . import model_ops as ops
from .copying import copy_backward, copy_forward, copy_loss
from .parameters import Arrays
from .vocab import UNKNOWN


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
