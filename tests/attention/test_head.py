"""One head by itself: the fused op where nothing stands between, and the same numbers put together from parts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from dhyan import ops
from dhyan.attention.read import HeadInputs, _exact_sum, head_backward, head_forward
from dhyan.attention.windows import Attendable, Centre, PredictiveWindow

B, T, S, U, D = 2, 3, 5, 4, 6


def inputs(normalize: str = "softmax", tanh: bool = True) -> HeadInputs:
    rng = np.random.default_rng(0)
    lengths = np.array([5, 3])
    end = np.repeat(lengths[:, None], T, 1)
    q, k, v = (rng.standard_normal(shape) for shape in ((B, T, U), (B, S, U), (B, S, D)))
    w = rng.standard_normal(U) if tanh else None
    more = {"threshold": np.array([0.3]), "previous": np.eye(S)[[0, 1]]} if normalize == "monotonic" else {}
    return HeadInputs(normalize, q, k, v, w, 0.7, Attendable(lengths, np.zeros_like(end), end), **more)


def centred(x: HeadInputs) -> HeadInputs:
    rng = np.random.default_rng(1)
    p = {"window_query": rng.standard_normal((U, U)), "window_v": rng.standard_normal(U)}
    centre = Centre.of(PredictiveWindow(2), p, x.q, x.may.lengths, S)
    return dataclasses.replace(x, centre=centre, may=centre.cut(x.may))


@pytest.mark.parametrize("tanh", [True, False])
def test_softmax_alone_is_the_fused_op(tanh: bool) -> None:
    x = inputs(tanh=tanh)
    context, cache = head_forward(x)
    want, weights, _ = ops.attention_forward(x.q, x.k, x.v, x.w, term=x.term, scale=0.7, end=x.may.end)
    assert context.tobytes() == want.tobytes() and cache.weights.tobytes() == weights.tobytes()
    assert head_forward(x, need_weights=False)[1].weights is None


@pytest.mark.parametrize("kind", ["softmax", "sparsemax", "monotonic", "centre"])
def test_gradients_by_central_differences(kind: str) -> None:
    x = centred(inputs()) if kind == "centre" else inputs(kind)
    rng = np.random.default_rng(2)
    dcontext, dweights = rng.standard_normal((B, T, D)), rng.standard_normal((B, T, S))

    def loss(y: HeadInputs) -> float:
        context, cache = head_forward(y)
        assert cache.weights is not None
        return float((context * dcontext).sum() + (cache.weights * dweights).sum())

    gradients = head_backward(head_forward(x)[1], dcontext, dweights)
    names = ["q", "k", "v", "w"] + ["previous", "threshold"] * (kind == "monotonic")
    for name in names:
        value = getattr(x, name)
        along = rng.standard_normal(value.shape)
        high, low = (loss(dataclasses.replace(x, **{name: value + h * along})) for h in (1e-6, -1e-6))
        # truncation and rounding are both below 1e-9 at this width
        assert abs((np.asarray(getattr(gradients, name)) * along).sum() - (high - low) / 2e-6) < 1e-8, name


def test_the_threshold_of_infinite_gradients_is_no_number() -> None:
    x, dweights = inputs("monotonic"), np.zeros((B, T, S))
    dweights[:, 0, :2] = np.inf, -np.inf
    gradients = head_backward(head_forward(x)[1], np.ones((B, T, D)), dweights)
    assert not np.isfinite(gradients.threshold)


@pytest.mark.parametrize(
    ("values", "total"), [((1e16, 1.0, -1e16), 1.0), ((1.7e308, 1.7e308), np.inf), ((np.inf, -np.inf), np.nan)]
)
def test_a_sum_is_exact_where_it_is_a_number(values: tuple[float, ...], total: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_equal(_exact_sum(np.array(values)), total)


def test_a_centre_takes_weight_away() -> None:
    plain, narrowed = head_forward(inputs())[1].weights, head_forward(centred(inputs()))[1].weights
    assert plain is not None and narrowed is not None
    assert (narrowed.sum(2) < plain.sum(2)).all()
