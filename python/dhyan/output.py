"""Readouts -> loss: the output layer with its cross entropy, and the gradients of both."""

from __future__ import annotations

import numpy as np

from . import model_ops as ops
from .parameters import Arrays


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

    def backward(self) -> tuple[Arrays, np.ndarray]:
        """Arrays for all gradients, in which those of the output layer are written, and dreadout (N, E)."""
        if self._kept is None:
            made, self._made = self._made or self._both()[1], None
            return made
        gradients = self.p.like()
        dw, db = gradients["output.weight"], gradients["output.bias"]
        dreadout, _, _ = ops.cross_entropy_backward(self._scale, self._kept, dw=dw, db=db)
        return gradients, dreadout
