"""The predicted centre of local-p attention (Luong 2015): forward, and the gradient through its Gaussian."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from . import model_ops as ops
from .scoring_base import Parameters
from .windows import PredictiveWindow, Restriction

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

    def cut(self, may: Restriction) -> Restriction:
        """Only |s - p| <= radius; a centre that is not finite cuts nothing and shows as NaN in its row."""
        known, S = np.isfinite(self.centre), self.gaussian.shape[2]
        p, radius = np.where(known, self.centre, 0), min(self.radius, S)  # a wider one reaches no further
        low = np.where(known, np.ceil(p - radius), 0).astype(np.int64)
        high = np.where(known, np.floor(p + radius) + 1, S).astype(np.int64)
        begin = np.maximum(may.begin, low)
        end = np.maximum(np.minimum(may.end, high), 0)
        return Restriction(may.lengths, np.minimum(begin, end), end, may.mask)

    def backward(self, p: Parameters, dcentre: np.ndarray, query: np.ndarray, gradients: Parameters) -> np.ndarray:
        """dquery (B, T, Q) from dcentre (B, T); adds the gradients of window_query and window_v."""
        dlogit = dcentre * self.lengths[:, None] * self.share * (1 - self.share)
        dhidden = dlogit[:, :, None] * p["window_v"] * (1 - self.hidden.astype(np.float64) ** 2)
        gradients["window_v"] += (dlogit[:, :, None] * self.hidden).sum((0, 1)).astype(query.dtype)
        dquery, dmatrix, _ = ops.linear_backward(dhidden.astype(query.dtype), query, p["window_query"])
        gradients["window_query"] += dmatrix
        return dquery
