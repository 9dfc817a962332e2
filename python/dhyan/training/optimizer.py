"""Optimisers over a flat parameter buffer: Adam, AdamW and SGD with momentum, each with global-norm clipping."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from dhyan import ops
from dhyan.errors import NumericError
from dhyan.model.arrays import Arrays
from dhyan.model.seq2seq import Seq2Seq


class Optimizer(ABC):
    """What all have in common: the gradient is clipped to global norm `clip` first (Pascanu et al. 2013; 0: it is not).

    `lr` may be set between steps; `steps` counts the updates made; `state()` is all else that an exact resume needs.
    The parameters of a predictive window move by a tenth of the step (`predictive.RATE` says why).
    weight_decay: the subclass says what it does.
    Errors: ValueError for a learning rate that is not positive and finite, weight_decay < 0, clip < 0.
    """

    def __init__(self, model: Seq2Seq, lr: float, *, weight_decay: float, clip: float) -> None:
        self.model = model
        self.weight_decay, self.clip = weight_decay, clip
        for key, value in (("weight_decay", weight_decay), ("clip", clip)):
            self._check_not_negative(key, value)
        self.lr = lr
        self.steps = 0
        parameters = model.parameters()
        self._slow = [(parameters[f"attention.{name}"], rate) for name, rate in model.config.setting.rates().items()]

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        if not (0 < value < math.inf):
            raise ValueError(f"{self._name}: lr is {value}, expected a positive finite number")
        self._lr = value

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Name -> flat array, like the model's parameters; written to, they change the optimiser."""

    @abstractmethod
    def _update(self, g: np.ndarray) -> float:
        """One update of model.flat by the flat gradient; returns its norm before clipping."""

    def step(self, gradients: Mapping[str, np.ndarray]) -> float:
        """One update in place; returns the global norm of the gradient before clipping.

        Errors: NumericError naming parameter and step where a gradient is not finite; nothing is changed then.
        """
        flat = gradients.flat if isinstance(gradients, Arrays) else self._flatten(gradients)
        before = [array.copy() for array, _ in self._slow]
        try:
            norm = self._update(flat)
        except NumericError:
            bad = [name for name, g in gradients.items() if not np.isfinite(g).all()]
            what = f"the gradient of {bad[0]} is not finite" if bad else "the norm of the gradient overflows"
            raise NumericError(f"{self._name}: {what} at step {self.steps + 1}; the step was not made") from None
        for (array, rate), old in zip(self._slow, before, strict=True):
            array[...] = old + rate * (array - old)
        self.steps += 1
        return norm

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_not_negative(self, key: str, value: float) -> None:
        if not (0 <= value < math.inf):
            raise ValueError(f"{self._name}: {key} is {value}, expected a finite number, 0 or more")

    def _check_decay_rate(self, key: str, value: float) -> None:
        if not 0 <= value < 1:
            raise ValueError(f"{self._name}: {key} is {value}, expected 0 <= {key} < 1")

    def _flatten(self, gradients: Mapping[str, np.ndarray]) -> np.ndarray:
        parameters = self.model.parameters()
        if set(gradients) != set(parameters):
            odd = sorted(set(gradients) ^ set(parameters))
            raise ValueError(f"{self._name}: gradients and parameters differ in {odd[0]!r}, expected the same names")
        arrays = self.model.gradient_arrays()
        for name, array in arrays.items():
            got = np.shape(gradients[name])
            if got != array.shape:
                raise ValueError(f"{self._name}: the gradient of {name} has shape {got}, expected {array.shape}")
            array[...] = gradients[name]
        return arrays.flat


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015), see `ops.adam_step`; weight_decay p is added to the clipped gradient (an L2 penalty).

    State: m, v. Errors: as Optimizer; ValueError for betas outside [0, 1) and eps < 0.
    """

    decoupled = False

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
        super().__init__(model, lr, weight_decay=weight_decay, clip=clip)
        self.betas, self.eps = betas, eps
        for index in (0, 1):
            self._check_decay_rate(f"betas[{index}]", betas[index])
        self._check_not_negative("eps", eps)
        self.m, self.v = np.zeros_like(model.flat), np.zeros_like(model.flat)

    def state(self) -> dict[str, np.ndarray]:
        return {"m": self.m, "v": self.v}

    def _update(self, g: np.ndarray) -> float:
        clip, decay, norm = self.clip, self.weight_decay, None
        if decay and not self.decoupled:
            g, norm = ops.penalised_gradient(self.model.flat, g, weight_decay=decay, clip=clip, step=self.steps + 1)
            clip = decay = 0.0
        found = ops.adam_step(
            self.model.flat, g, self.m, self.v, step=self.steps + 1, lr=self.lr, beta1=self.betas[0],
            beta2=self.betas[1], eps=self.eps, weight_decay=decay, clip=clip,
        )  # fmt: skip
        return found if norm is None else norm


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019): p -= lr weight_decay p beside the step of Adam.

    Without weight decay the same as Adam, bit for bit.
    """

    decoupled = True


class SGD(Optimizer):
    """Gradient descent with (heavy-ball) momentum (Polyak 1964); weight_decay is an L2 penalty. See `ops.sgd_step`.

    State: m. Errors: as Optimizer; ValueError for a momentum outside [0, 1).
    """

    def __init__(
        self, model: Seq2Seq, lr: float = 0.1, *, momentum: float = 0.9, weight_decay: float = 0.0, clip: float = 1.0
    ) -> None:
        super().__init__(model, lr, weight_decay=weight_decay, clip=clip)
        self._check_decay_rate("momentum", momentum)
        self.momentum = momentum
        self.m = np.zeros_like(model.flat)

    def state(self) -> dict[str, np.ndarray]:
        return {"m": self.m}

    def _update(self, g: np.ndarray) -> float:
        return ops.sgd_step(
            self.model.flat, g, self.m, step=self.steps + 1, lr=self.lr, momentum=self.momentum,
            weight_decay=self.weight_decay, clip=self.clip,
        )  # fmt: skip
