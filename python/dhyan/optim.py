"""Adam over a model's flat parameter buffer."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from . import model_ops as ops
from .errors import NumericError
from .model import Seq2Seq
from .parameters import Arrays


class Adam:
    """Adam (Kingma & Ba 2015) with the gradient clipped to global norm `clip` first; see `ops.adam_step`.

    State: m, v (flat, like the model) and steps, the number of updates made.
    Errors: ValueError for a learning rate that is not positive and finite, betas outside [0, 1), clip < 0.
    """

    def __init__(
        self,
        model: Seq2Seq,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        clip: float = 1.0,
    ) -> None:
        self.model = model
        self.betas, self.eps, self.weight_decay, self.clip = betas, eps, weight_decay, clip
        for name, value in (("betas[0]", betas[0]), ("betas[1]", betas[1])):
            if not 0 <= value < 1:
                raise ValueError(f"Adam: {name} is {value}, expected 0 <= beta < 1")
        for name, value in (("eps", eps), ("weight_decay", weight_decay), ("clip", clip)):
            if not (0 <= value < math.inf):
                raise ValueError(f"Adam: {name} is {value}, expected a finite number, 0 or more")
        self.lr = lr
        self.m, self.v = np.zeros_like(model.flat), np.zeros_like(model.flat)
        self.steps = 0

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        if not (0 < value < math.inf):
            raise ValueError(f"Adam: lr is {value}, expected a positive finite number")
        self._lr = value

    def step(self, gradients: Mapping[str, np.ndarray]) -> float:
        """One update in place; returns the global norm of the gradient before clipping.

        Errors: NumericError naming parameter and step where a gradient is not finite; nothing is changed then.
        """
        flat = gradients.flat if isinstance(gradients, Arrays) else self._flatten(gradients)
        try:
            norm = ops.adam_step(
                self.model.flat,
                flat,
                self.m,
                self.v,
                step=self.steps + 1,
                lr=self.lr,
                beta1=self.betas[0],
                beta2=self.betas[1],
                eps=self.eps,
                weight_decay=self.weight_decay,
                clip=self.clip,
            )
        except NumericError:
            bad = [name for name, g in gradients.items() if not np.isfinite(g).all()]
            what = f"the gradient of {bad[0]} is not finite" if bad else "the norm of the gradient overflows"
            raise NumericError(f"Adam: {what} at step {self.steps + 1}; the step was not made") from None
        self.steps += 1
        return norm

    def _flatten(self, gradients: Mapping[str, np.ndarray]) -> np.ndarray:
        parameters = self.model.parameters()
        if set(gradients) != set(parameters):
            odd = sorted(set(gradients) ^ set(parameters))
            raise ValueError(f"Adam: gradients and parameters differ in {odd[0]!r}, expected the same names")
        arrays = self.model._parameters.like()
        for name, array in arrays.items():
            got = np.shape(gradients[name])
            if got != array.shape:
                raise ValueError(f"Adam: the gradient of {name} has shape {got}, expected {array.shape}")
            array[...] = gradients[name]
        return arrays.flat
