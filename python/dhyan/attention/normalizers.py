"""Normalisers: how the scores of what a row may attend become its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dhyan import ops
from dhyan.registry import Registry


@dataclass(frozen=True)
class Normalizer:
    """forward(scores, begin=, end=, mask=) -> weights (B, T, S); backward(dweights, weights) -> dscores.

    in_core: the core's decoder loop has it. feedback: a row goes on from the alignment of the row before, so that
    forward also takes previous= (B, S) and hard=, and backward scores, weights, previous= and what may be attended.
    One of your own is known after `NORMALIZERS.add("name", Normalizer(forward, backward))`.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    in_core: bool = False
    feedback: bool = False


NORMALIZERS: Registry[Normalizer] = Registry("attention: normalize")
NORMALIZERS.add("softmax", Normalizer(ops.softmax_forward, ops.softmax_backward, in_core=True))
NORMALIZERS.add("sparsemax", Normalizer(ops.sparsemax_forward, ops.sparsemax_backward, in_core=True))
NORMALIZERS.add("monotonic", Normalizer(ops.monotonic_forward, ops.monotonic_backward, feedback=True))
