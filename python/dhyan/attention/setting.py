"""What a configuration asks of attention: the scoring, its widths, heads, window, normaliser and temperature."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .normalizers import NORMALIZERS, Normalizer
from .scoring import Initial, Parameters, Scorer, Scoring, Sizes
from .scorings import scoring
from .windows import RATE, AnyWindow, PredictiveWindow


@dataclass(frozen=True)
class Setting:
    """One checked combination; ValueError where its parts do not fit.

    Parameters beside the scoring's own: window_query (Q, U), window_v (U) of a PredictiveWindow; threshold (1,) of the
    monotonic normaliser, added to every score.
    """

    name: str
    sizes: Sizes
    window: AnyWindow | None = None
    normalize: str = "softmax"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        where, chosen, sizes = f"attention {self.name!r}", self.scoring, self.sizes
        normalizer = self.normalizer
        if isinstance(self.temperature, bool) or not isinstance(self.temperature, int | float):
            raise TypeError(f"{where}: temperature is {self.temperature!r}, expected a number")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"{where}: temperature is {self.temperature}, expected a finite number above 0")
        chosen.check(sizes)
        if sizes.normalized and "g" not in chosen.shapes(sizes):
            raise ValueError(
                f"{where}: normalized is true, expected false: only additive scorings have the (g, b) form"
            )
        if sizes.heads > 1:
            self._check_heads(where)
        if self.window is not None:
            if normalizer.feedback:
                raise ValueError(f"{where}: a window with normalize {self.normalize!r}, expected one of them")
            if isinstance(self.window, PredictiveWindow) and not chosen.content:
                raise ValueError(f"{where}: a predictive window needs a scoring of the content, expected window = None")
        if chosen.scorer_is_rule and self.normalize != "softmax":
            raise ValueError(f"{where} has no scores: normalize is {self.normalize!r}, expected 'softmax'")

    def _check_heads(self, where: str) -> None:
        heads, sizes = self.sizes.heads, self.sizes
        if not self.scoring.content:
            raise ValueError(f"{where}: heads is {heads}, expected 1: only scorings of the content have several")
        for what, width in (("query and keys", self.scoring.key_width(sizes)), ("memory", sizes.memory)):
            if width % heads:
                raise ValueError(f"{where}: heads is {heads}, expected a divisor of {width}, the width of the {what}")

    @property
    def scoring(self) -> Scoring:
        """The registered scoring."""
        return scoring(self.name)

    @property
    def normalizer(self) -> Normalizer:
        """The registered normaliser."""
        return NORMALIZERS.find(self.normalize)

    @property
    def step_by_step(self) -> bool:
        """True where the core's decoder loop cannot read: it then calls back step by step, see `model.feedback`."""
        return (
            self.scoring.feedback != ""
            or self.scoring.step_by_step
            or not self.normalizer.in_core
            or self.sizes.heads > 1
            or isinstance(self.window, PredictiveWindow)
        )

    @property
    def needs_feedback(self) -> bool:
        """True where a row depends on the weights of earlier rows."""
        return self.scoring.feedback != "" or self.normalizer.feedback

    def parameters(self) -> Iterator[tuple[str, tuple[int, ...], Initial]]:
        """Name, shape and initial value of each parameter."""
        shapes = dict(self.scoring.shapes(self.sizes))
        if isinstance(self.window, PredictiveWindow):
            shapes["window_query"] = (self.sizes.query, self.sizes.units)
            shapes["window_v"] = (self.sizes.units,)
        for name, shape in shapes.items():
            yield name, shape, self._initial(name)
        if self.normalize == "monotonic":  # at first attention rather moves on than stops (Raffel 2017)
            yield "threshold", (1,), lambda array, rng: array.fill(-1.0)

    def _initial(self, name: str) -> Initial:
        def fill(array: np.ndarray, rng: np.random.Generator) -> None:
            array[...] = self.scoring.initial(name, array.shape, rng)

        return fill

    def rates(self) -> dict[str, float]:
        """Parameter -> the share of an optimiser's step that it moves by, where that is not all of it."""
        slow = ("window_query", "window_v") if isinstance(self.window, PredictiveWindow) else ()
        return dict.fromkeys(slow, RATE)

    def scorer(self, p: Parameters) -> Scorer:
        """The term with its parameters; a temperature divides the scores."""
        plain = self.scoring.scorer(p, self.sizes)
        return replace(plain, scale=plain.scale / self.temperature)
