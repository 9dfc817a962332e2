"""Which source positions a target row may attend: windows, the half-open ranges they and the lengths leave, and the
predicted centre of local-p attention (Luong 2015), forward and the gradient through its Gaussian.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from dhyan import ops
from dhyan.errors import check_integer

from .scoring import Parameters


def _check_radius(name: str, radius: Any, least: int) -> None:
    if isinstance(radius, float) and math.isnan(radius):
        raise ValueError(f"{name}: radius is nan, expected an integer, at least {least}")
    check_integer(name, "radius", radius, least)


@dataclass(frozen=True)
class Window:
    """Only positions |s - min(t, length - 1)| <= radius are scored (the monotonic window local-m of Luong 2015)."""

    radius: int

    def __post_init__(self) -> None:
        _check_radius("Window", self.radius, 0)


@dataclass(frozen=True)
class PredictiveWindow:
    """A window whose centre is predicted from the query (local-p of Luong 2015).

        p = length * sigmoid(window_v . tanh(query @ window_query))

    Only |s - p| <= radius is scored, and the normalised weights are multiplied by exp(-(s - p)^2 / (2 (radius/2)^2)),
    not normalised again: a row sums to less than 1. The gradient flows through the Gaussian; the cut itself has none.
    """

    radius: int

    def __post_init__(self) -> None:
        _check_radius("PredictiveWindow", self.radius, 1)


AnyWindow = Window | PredictiveWindow
_PREDICTIVE = "predictive:"


def window_from(value: Any) -> AnyWindow | None:
    """A window from what a configuration holds: None, a radius (local-m), "predictive:RADIUS", or the window itself."""
    if value is None or isinstance(value, Window | PredictiveWindow):
        return value
    if isinstance(value, str):
        text = value.removeprefix(_PREDICTIVE)
        if not text.isdecimal() or not text.isascii():
            raise ValueError(f"window is {value!r}, expected a radius or {_PREDICTIVE}RADIUS")
        return PredictiveWindow(int(text)) if value.startswith(_PREDICTIVE) else Window(int(text))
    return Window(value)


def window_to(window: AnyWindow | None) -> int | str | None:
    """The plain value that window_from reads."""
    if isinstance(window, PredictiveWindow):
        return f"{_PREDICTIVE}{window.radius}"
    return None if window is None else window.radius


def ranges(
    lengths: np.ndarray, T: int, S: int, *, window: Window | None, causal: bool, position: np.ndarray | int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """begin, end (B, T) int64 of sentences with these lengths (B,).

    Row t sees s < length; with causal s <= t + length - T; with a window |s - min(t + position, length - 1)| <= radius.
    """
    B = len(lengths)
    rows, own = np.arange(T, dtype=np.int64)[None, :], lengths[:, None]
    begin, end = np.zeros((B, T), np.int64), np.broadcast_to(own, (B, T))
    if causal:
        end = np.clip(rows + own - T + 1, 0, own)
    if window is not None:
        radius = min(window.radius, S)  # a wider one reaches no further, and 64 bits hold it
        centre = np.minimum(rows + np.minimum(np.reshape(position, (-1, 1)), S), own - 1)
        begin = np.maximum(begin, centre - radius)
        end = np.minimum(end, centre + radius + 1)
    end = np.maximum(end, 0)
    return np.minimum(begin, end), np.ascontiguousarray(end)


@dataclass(frozen=True, eq=False)
class Attendable:
    """What the T rows of B sentences may attend: begin <= s < end, and the mask where there is one.

    lengths (B,): the sentences' own lengths; begin, end (B, T) int64; mask bool, broadcastable to (B, T, S), or None.
    """

    lengths: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    mask: np.ndarray | None = None

    def rows(self, first: int, last: int) -> Attendable:
        """That of rows first to last - 1."""
        mask = self.mask
        if mask is not None and mask.ndim >= 2 and mask.shape[-2] > 1:
            mask = mask[..., first:last, :]
        return Attendable(self.lengths, self.begin[:, first:last], self.end[:, first:last], mask)

    def allowed(self, S: int) -> np.ndarray:
        """(B, T, S): True where row t may attend s."""
        s = np.arange(S)
        inside = (self.begin[:, :, None] <= s) & (s < self.end[:, :, None])
        return inside if self.mask is None else inside & self.mask

    def visible(self, S: int) -> np.ndarray:
        """(B, S): True where some row may attend s. What no row may attend is never looked at."""
        if self.mask is not None:
            return np.any(self.allowed(S), axis=1)
        B, T = self.begin.shape
        edges = np.zeros((B, S + 1), np.int64)  # +1 where a range begins, -1 where it ends: no (B, T, S) array
        sentence = np.repeat(np.arange(B), T)
        np.add.at(edges, (sentence, self.begin.ravel()), 1)
        np.add.at(edges, (sentence, self.end.ravel()), -1)
        return np.cumsum(edges, 1)[:, :S] > 0

    def empty_rows(self, S: int) -> np.ndarray:
        """(B, T): True where a row may attend nothing."""
        if self.mask is not None:
            return np.all(~self.allowed(S), axis=2)
        return self.begin >= self.end


# The optimisers move window_query and window_v by this share of their step. One step of Adam changes every weight by
# about the learning rate, and p by up to length / 4 times the sum of what it changes: with whole steps the sigmoid was
# at 0 or 1 after 60 updates and stayed there, all windows at one end of the sentence (generated corpus, lr 4e-3). With
# a tenth p goes from the first word to the last within 300.
RATE = 0.1


@dataclass(frozen=True, eq=False)
class Centre:
    """p (B, T) = length * sigmoid(window_v . tanh(query window_query)), and the Gaussian around it."""

    centre: np.ndarray  # (B, T) float64
    share: np.ndarray  # (B, T) float64, p / length
    hidden: np.ndarray  # (B, T, U)
    lengths: np.ndarray
    radius: int
    gaussian: np.ndarray  # (B, T, S)
    slope: np.ndarray  # (B, T, S) d log gaussian / dp

    @classmethod
    def of(cls, window: PredictiveWindow, p: Parameters, query: np.ndarray, lengths: np.ndarray, S: int) -> Centre:
        """The centres of these queries (B, T, Q) in sentences of these lengths."""
        hidden = np.tanh(ops.linear_forward(query, p["window_query"]))
        logit = (hidden.astype(np.float64) * p["window_v"]).sum(2)
        share = 0.5 * (1 + np.tanh(0.5 * logit))  # the sigmoid, without overflow
        centre = share * lengths[:, None]
        sigma = min(window.radius, sys.maxsize) / 2  # a wider Gaussian is the same: 1 everywhere
        away = np.arange(S) - centre[:, :, None]
        gaussian, slope = np.exp(-(away**2) / (2 * sigma**2)), away / sigma**2
        return cls(centre, share, hidden, lengths, window.radius, gaussian.astype(query.dtype), slope)

    def cut(self, may: Attendable) -> Attendable:
        """Only |s - p| <= radius; a centre that is not finite cuts nothing and shows as NaN in its row."""
        known, S = np.isfinite(self.centre), self.gaussian.shape[2]
        p, radius = np.where(known, self.centre, 0), min(self.radius, S)  # a wider one reaches no further
        low = np.where(known, np.ceil(p - radius), 0).astype(np.int64)
        high = np.where(known, np.floor(p + radius) + 1, S).astype(np.int64)
        begin = np.maximum(may.begin, low)
        end = np.maximum(np.minimum(may.end, high), 0)
        return Attendable(may.lengths, np.minimum(begin, end), end, may.mask)

    def backward(self, p: Parameters, dcentre: np.ndarray, query: np.ndarray, gradients: Parameters) -> np.ndarray:
        """dquery (B, T, Q) from dcentre (B, T); adds the gradients of window_query and window_v."""
        dlogit = dcentre * self.lengths[:, None] * self.share * (1 - self.share)
        dhidden = dlogit[:, :, None] * p["window_v"] * (1 - self.hidden.astype(np.float64) ** 2)
        gradients["window_v"] += (dlogit[:, :, None] * self.hidden).sum((0, 1)).astype(query.dtype)
        dquery, dmatrix, _ = ops.linear_backward(dhidden.astype(query.dtype), query, p["window_query"])
        gradients["window_query"] += dmatrix
        return dquery
