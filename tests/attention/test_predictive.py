"""The predicted centre: its formula, its cut, and its gradient by complex step."""

from __future__ import annotations

import dhyan
import numpy as np
import pytest
from dhyan import PredictiveWindow
from dhyan.attention.windows import Attendable, Centre
from spec import ops as reference

B, T, Q, U, S = 3, 2, 4, 5, 9
LENGTHS = np.array([9, 0, 4])


def made(radius: int = 2, dtype: type = np.float64) -> tuple[Centre, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    p = {"window_query": rng.normal(size=(Q, U)).astype(dtype), "window_v": rng.normal(size=U).astype(dtype)}
    query = rng.normal(size=(B, T, Q)).astype(dtype)
    return Centre.of(PredictiveWindow(radius), p, query, LENGTHS, S), p, query


def everywhere() -> Attendable:
    return Attendable(LENGTHS, np.zeros((B, T), np.int64), np.repeat(LENGTHS[:, None], T, 1))


def centres(query: np.ndarray, matrix: np.ndarray, v: np.ndarray) -> np.ndarray:
    return LENGTHS[:, None] * 0.5 * (1 + np.tanh(0.5 * (np.tanh(query @ matrix) * v).sum(-1)))


@pytest.mark.parametrize("radius", [1, 2, 20])
def test_centre_gaussian_and_cut(radius: int) -> None:
    centre, p, query = made(radius)
    place = centres(query, p["window_query"], p["window_v"])
    np.testing.assert_allclose(centre.centre, place, rtol=1e-14)
    away = np.arange(S) - place[:, :, None]
    np.testing.assert_allclose(centre.gaussian, np.exp(-(away**2) / (2 * (radius / 2) ** 2)), rtol=1e-12)
    inside = (np.abs(away) <= radius) & (np.arange(S) < LENGTHS[:, None, None])
    np.testing.assert_array_equal(centre.cut(everywhere()).allowed(S), inside)


def test_a_centre_between_positions_keeps_both_edges() -> None:
    """p = 4.5 exactly, radius 1: positions 4 and 5; p = 2 of the short sentence: 1, 2 and 3."""
    p = {"window_query": np.zeros((Q, U)), "window_v": np.ones(U)}
    may = Centre.of(PredictiveWindow(1), p, np.ones((B, T, Q)), LENGTHS, S).cut(everywhere())
    assert may.begin[:, 0].tolist() == [4, 0, 1] and may.end[:, 0].tolist() == [6, 0, 4]


@pytest.mark.parametrize("radius", [2**62, 2**63, 10**400], ids=["2**62", "2**63", "10**400"])
def test_a_radius_beyond_the_source_cuts_nothing(radius: int) -> None:
    centre, *_ = made(radius)
    np.testing.assert_array_equal(centre.cut(everywhere()).allowed(S), everywhere().allowed(S))
    assert (centre.gaussian == 1).all()


def test_a_saturated_centre_stays_in_the_sentence() -> None:
    p = {"window_query": np.full((Q, U), 1e3), "window_v": np.full(U, 1e4)}
    for sign, place in ((-1, 0), (1, 9)):
        centre = Centre.of(PredictiveWindow(2), p, np.full((B, T, Q), float(sign)), LENGTHS, S)
        assert (centre.centre[0] == place).all() and not centre.cut(everywhere()).empty_rows(S)[0].any()


def test_a_centre_that_is_nan_cuts_nothing_and_shows() -> None:
    _, p, query = made()
    query[0, 1] = np.nan
    with np.errstate(invalid="ignore"):
        centre = Centre.of(PredictiveWindow(1), p, query, LENGTHS, S)
        may = centre.cut(everywhere())
    assert (may.begin[0, 1], may.end[0, 1]) == (0, 9) and np.isnan(centre.gaussian[0, 1]).all()
    assert np.isfinite(np.delete(centre.gaussian.reshape(-1, S), 1, 0)).all()


def test_the_gradient_by_complex_step() -> None:
    centre, p, query = made()
    dcentre = np.random.default_rng(1).normal(size=(B, T))
    gradients = {name: np.ones_like(array) for name, array in p.items()}  # what is there is added to
    dquery = centre.backward(p, dcentre, query, gradients)
    found = dquery, gradients["window_query"] - 1, gradients["window_v"] - 1
    for i, got in enumerate(found):
        slope = reference.complex_step(lambda *a: (centres(*a) * dcentre).sum(), [query, *p.values()], i)
        np.testing.assert_allclose(got, slope, atol=1e-12)
    assert not dquery[1].any()  # a sentence of length 0 has no centre to move


def test_the_slope_of_the_gaussian() -> None:
    centre, _, _ = made()
    shifted = [np.exp(-((np.arange(S) - centre.centre[:, :, None] - h) ** 2) / 2) for h in (1e-6, -1e-6)]
    slope = (shifted[0] - shifted[1]) / 2e-6
    np.testing.assert_allclose(centre.gaussian * centre.slope, slope, atol=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_do_not_depend_on_the_padding(heads: int, dtype: str) -> None:
    """Long enough for sums that NumPy would cut into blocks by the length of the array."""
    rng = np.random.default_rng(0)
    attention = dhyan.Attention("additive", 4, 4, heads=heads, window=PredictiveWindow(6), dtype=dtype)
    query, memory, dcontext = (rng.normal(size=(3, n, 4)).astype(dtype) for n in (5, 30, 5))
    lengths = np.array([30, 11, 19])
    _, cache = attention.forward(query, memory, lengths=lengths)
    plain = attention.backward(dcontext, cache)
    for more in (1, 5, 40):
        padded = np.concatenate([memory, np.full((3, more, 4), np.nan, dtype)], 1)
        _, cache = attention.forward(query, padded, lengths=lengths)
        wide = attention.backward(dcontext, cache)
        np.testing.assert_array_equal(wide.query, plain.query)
        np.testing.assert_array_equal(wide.memory[:, :30], plain.memory)
        for name, array in plain.parameters.items():
            np.testing.assert_array_equal(wide.parameters[name], array, err_msg=name)


@pytest.mark.parametrize("shape", [(0, 2, Q), (2, 0, Q)])
def test_empty_is_a_size(shape: tuple[int, ...]) -> None:
    _, p, _ = made()
    query, lengths = np.zeros(shape), np.full(shape[0], 3)
    centre = Centre.of(PredictiveWindow(1), p, query, lengths, 3)
    assert centre.gaussian.shape == (*shape[:2], 3)
    gradients = {name: np.zeros_like(array) for name, array in p.items()}
    assert centre.backward(p, np.zeros(shape[:2]), query, gradients).shape == shape
    assert not any(array.any() for array in gradients.values())
