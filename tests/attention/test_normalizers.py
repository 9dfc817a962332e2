"""The table of normalisers, and one of a user's own through layer and model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import ops
from dhyan.attention.normalizers import NORMALIZERS, Normalizer


@pytest.fixture
def tempered() -> Iterator[None]:
    """softmax(scores / 2), as a user would add it."""

    def forward(scores: np.ndarray, **where: Any) -> np.ndarray:
        return ops.softmax_forward(scores / 2, **where)

    def backward(dweights: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return ops.softmax_backward(dweights, weights) / 2

    NORMALIZERS.add("tempered", Normalizer(forward, backward))
    yield
    del NORMALIZERS["tempered"]


def test_the_names() -> None:
    assert NORMALIZERS.names() == ["softmax", "sparsemax", "monotonic"]
    with pytest.raises(ValueError, match="normalize is 'sparsmax', expected one of: sparsemax"):
        dhyan.Attention("dot", 4, 4, normalize="sparsmax")
    with pytest.raises(ValueError, match=r"normalize is .*'softmax'.*, expected one of"):
        dhyan.ModelConfig(source_size=5, target_size=5, normalize=["softmax"])  # type: ignore[arg-type]


def test_one_of_your_own_is_softmax_at_that_temperature(tempered: None) -> None:
    """Loss, gradients, greedy outputs and beams of a model, to rounding."""
    sizes: dict[str, Any] = dict(source_size=9, target_size=8, embedding=3, hidden=4, dropout=0.0)
    models = [
        dhyan.Seq2Seq(dhyan.ModelConfig(**sizes, **choices), seed=1, dtype="float64")
        for choices in (dict(normalize="tempered"), dict(temperature=2.0))
    ]
    source, target = np.array([[4, 5, 6, 7, 2], [8, 4, 2, 0, 0]]), np.array([[1, 4, 5, 2], [1, 6, 2, 0]])
    batch = dhyan.Batch(source, np.array([5, 3]), target, np.array([4, 3]))
    results = []
    for model in models:
        loss, cache = model.forward(batch)
        gradients, (ids, weights) = model.backward(cache), model.greedy(source, batch.source_lengths, 6)
        results.append([loss, gradients.flat, ids, weights])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)
