"""Small models to search with, and hypotheses to compare."""

from __future__ import annotations

from typing import Any

import numpy as np
from dhyan import ModelConfig, Seq2Seq
from dhyan.search.beam import Hypothesis
from dhyan.search.constraints import Constraints
from spec.model import random_parameters

LENGTHS = np.array([4, 1, 3, 6])


def model_of(target_size: int = 5, **changes: Any) -> Seq2Seq:
    config = ModelConfig(
        source_size=8, target_size=target_size, embedding=5, hidden=6, dropout=0.0, cell="gru", **changes
    )
    model = Seq2Seq(config, dtype="float64")
    for name, array in model.parameters().items():
        array[...] = random_parameters(config, np.random.default_rng(3), 1.0)[name]
    return model


def sources() -> np.ndarray:
    return np.random.default_rng(0).integers(3, 8, (len(LENGTHS), LENGTHS.max()))


def same(a: list[Hypothesis], b: list[Hypothesis]) -> None:
    assert [(h.ids, h.score, h.finished) for h in a] == [(h.ids, h.score, h.finished) for h in b]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)


def constraints_of(prefix: tuple[int, ...], phrases: list[tuple[int, ...]], B: int = 1) -> Constraints | None:
    return Constraints.of([prefix] * B, [phrases] * B)
