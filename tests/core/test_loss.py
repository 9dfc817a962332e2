"""Softmax cross entropy with label smoothing over an output layer."""

from __future__ import annotations

import dhyan
import numpy as np
import pytest
from dhyan import ops
from spec import model as reference

# N, E, V
SHAPES = [(1, 1, 1), (2, 5, 7), (5, 2, 13), (7, 13, 2), (13, 7, 40), (40, 40, 5), (100, 5, 100), (5, 100, 133)]


def case(shape: tuple[int, int, int], seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """r, weight, bias in float64, and targets of which every fourth is ignored."""
    n, e, v = shape
    rng = np.random.default_rng(seed)
    arrays = {"r": rng.standard_normal((n, e)), "weight": rng.standard_normal((e, v)), "bias": rng.standard_normal(v)}
    targets = rng.integers(0, v, n)
    targets[3::4] = -1
    return arrays, targets


def forward(arrays, targets, smoothing=0.0):  # type: ignore[no-untyped-def]
    return ops.cross_entropy_forward(arrays["r"], arrays["weight"], arrays["bias"], targets, smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cross_entropy(isa: str, shape: tuple[int, int, int], smoothing: float) -> None:
    arrays, targets = case(shape)
    loss, cache = forward(arrays, targets, smoothing)

    def expected(a: dict[str, np.ndarray]) -> np.ndarray:
        return reference.cross_entropy(a["r"], a["weight"], a["bias"], targets, smoothing=smoothing)

    np.testing.assert_allclose(loss, expected(arrays), rtol=1e-13)
    scale = 0.37
    gradients = dict(zip(arrays, ops.cross_entropy_backward(scale, cache), strict=True))
    rng = np.random.default_rng(1)
    reference.assert_gradients(lambda a: scale * expected(a), arrays, gradients, rng)

    narrow = {name: array.astype(np.float32) for name, array in arrays.items()}
    wide = {name: array.astype(np.float64) for name, array in narrow.items()}
    loss32, cache32 = forward(narrow, targets, smoothing)
    exact, cache64 = forward(wide, targets, smoothing)
    logits = wide["r"] @ wide["weight"] + wide["bias"]
    # one rounding error of a logit enters every token's loss
    assert abs(loss32 - exact) <= 4 * 2**-23 * np.sqrt(shape[1] + 1) * max(1, abs(logits).max()) * shape[0]
    for got, value in zip(
        ops.cross_entropy_backward(scale, cache32), ops.cross_entropy_backward(scale, cache64), strict=True
    ):
        assert got.dtype == np.float32
        reference.assert_rounded(got, value, (shape[1] + 1) * max(1, abs(logits).max()) ** 2 + shape[0] + shape[2])


def test_ignored_targets_change_nothing(isa: str) -> None:
    arrays, targets = case((13, 5, 7))
    kept = targets >= 0
    loss, cache = forward(arrays, targets)
    fewer = arrays | {"r": arrays["r"][kept]}
    loss_kept, cache_kept = forward(fewer, targets[kept])
    np.testing.assert_allclose(loss, loss_kept, rtol=1e-14)
    dr, dw, db = ops.cross_entropy_backward(1.0, cache)
    dr_kept, dw_kept, db_kept = ops.cross_entropy_backward(1.0, cache_kept)
    np.testing.assert_array_equal(dr[kept], dr_kept)
    assert not dr[~kept].any()
    np.testing.assert_allclose(dw, dw_kept, atol=1e-14)
    np.testing.assert_allclose(db, db_kept, atol=1e-14)
    for poison in (np.nan, np.inf):
        poisoned = arrays | {"r": np.where(kept[:, None], arrays["r"], poison)}
        loss_poisoned, cache_poisoned = forward(poisoned, targets)
        assert loss_poisoned == loss
        for got, value in zip(ops.cross_entropy_backward(1.0, cache_poisoned), (dr, dw, db), strict=True):
            np.testing.assert_array_equal(got, value)


def test_nothing_to_predict_costs_nothing() -> None:
    arrays, targets = case((5, 3, 4))
    for n, chosen in ((5, np.full(5, -1)), (0, targets[:0])):
        loss, cache = forward(arrays | {"r": arrays["r"][:n]}, chosen)
        assert loss == 0
        assert not any(g.any() for g in ops.cross_entropy_backward(1.0, cache))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_logits_stay_finite(isa: str, dtype: str) -> None:
    r = np.array([[1e4], [-1e4], [1e15]], dtype)
    weight, bias = np.array([[1, -1, 0]], dtype), np.zeros(3, dtype)
    loss, cache = ops.cross_entropy_forward(r, weight, bias, np.array([0, 0, 0]))
    np.testing.assert_allclose(loss, 2e4, rtol=1e-6)
    dr, _, _ = ops.cross_entropy_backward(1.0, cache)
    np.testing.assert_allclose(dr[:, 0], [0, -2, 0])


def test_smoothed_loss_of_a_certain_wrong_answer() -> None:
    """p = (1/2, 1/4, 1/4), y = 0, eps = 0.3: -(0.7 log 1/2 + 0.1 (log 1/2 + 2 log 1/4)) = 1.2 log 2 by hand."""
    bias = np.log([0.5, 0.25, 0.25])
    loss, _ = ops.cross_entropy_forward(np.zeros((1, 1)), np.zeros((1, 3)), bias, np.array([0]), smoothing=0.3)
    np.testing.assert_allclose(loss, 1.2 * np.log(2), rtol=1e-14)


def test_bits_do_not_depend_on_threads(isa: str) -> None:
    arrays, targets = case((301, 33, 177))
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    before, results = dhyan.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4, 7, 8, 16):
            dhyan.set_num_threads(threads)
            loss, cache = forward(arrays, targets, 0.1)
            results.append([np.float64(loss), *ops.cross_entropy_backward(0.5, cache)])
    finally:
        dhyan.set_num_threads(before)
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_row_gradient_does_not_depend_on_its_batch(isa: str) -> None:
    arrays, targets = case((13, 33, 77))
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    _, cache = forward(arrays, targets, 0.1)
    together = ops.cross_entropy_backward(1.0, cache)[0]
    for i in range(13):
        _, cache = forward(arrays | {"r": arrays["r"][i : i + 1]}, targets[i : i + 1], 0.1)
        np.testing.assert_array_equal(ops.cross_entropy_backward(1.0, cache)[0][0], together[i])


def test_bad_input() -> None:
    arrays, targets = case((5, 3, 4))
    with pytest.raises(IndexError, match=r"4.*position|position.*4|\(2,\)|row 2|\[2\]"):
        forward(arrays, np.array([0, 1, 4, 0, 0]))
    for smoothing in (-0.1, 1.0, np.nan):
        with pytest.raises(ValueError, match="smoothing"):
            forward(arrays, targets, smoothing)
    with pytest.raises(ValueError, match=r"\(4,\)"):
        forward(arrays, targets[:4])
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        forward(arrays | {"weight": arrays["weight"].T.copy()}, targets)
    with pytest.raises(TypeError, match="targets"):
        forward(arrays, targets.astype(np.float64))
    with pytest.raises(TypeError, match="float32"):
        forward(arrays | {"bias": arrays["bias"].astype(np.float32)}, targets)


# ------------------------------------------------------------------------------------------------ shares


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shares_weigh_the_target_alone(isa: str, shape: tuple[int, int, int], smoothing: float, keep: bool) -> None:
    """What a model that may also copy asks for: the target's term of each row has a factor, smoothing has none."""
    arrays, targets = case(shape)
    shares = np.random.default_rng(2).random(shape[0])
    shares[::5], shares[1::5] = 0, 1
    _, cache = ops.cross_entropy_forward(*arrays.values(), targets, smoothing=smoothing, keep_logits=keep)

    def expected(a: dict[str, np.ndarray]) -> np.ndarray:
        log_p = reference.log_softmax(reference.linear(a["r"], a["weight"], a["bias"]))
        chosen = np.take_along_axis(log_p, np.broadcast_to(np.maximum(targets, 0), log_p.shape[:-1])[..., None], -1)
        rows = (1 - smoothing) * shares * chosen[..., 0] + smoothing * log_p.mean(-1)
        return -np.where(targets >= 0, rows, 0).sum(-1)

    gradients = dict(zip(arrays, ops.cross_entropy_backward(0.37, cache, shares=shares), strict=True))
    reference.assert_gradients(lambda a: 0.37 * expected(a), arrays, gradients, np.random.default_rng(1))


def test_equal_shares_are_a_scale_and_shares_of_one_are_none() -> None:
    arrays, targets = case((40, 7, 13))
    _, cache = forward(arrays, targets)
    for factor in (1.0, 0.25):
        halves = ops.cross_entropy_backward(1.0, cache, shares=np.full(40, factor))
        for got, value in zip(halves, ops.cross_entropy_backward(factor, cache), strict=True):
            np.testing.assert_array_equal(got, value)


def test_log_p_is_that_of_the_target() -> None:
    arrays, targets = case((13, 7, 40))
    _, cache = forward(arrays, targets)
    log_p = reference.log_softmax(reference.linear(arrays["r"], arrays["weight"], arrays["bias"]))
    expected = np.where(targets >= 0, log_p[np.arange(13), targets], 0)
    np.testing.assert_allclose(cache.log_p, expected, rtol=1e-13)


def test_bad_shares() -> None:
    arrays, targets = case((5, 3, 4))
    _, cache = forward(arrays, targets)
    with pytest.raises(ValueError, match=r"shares\[2\] is -0.5.*at least 0"):
        ops.cross_entropy_backward(1.0, cache, shares=np.array([0, 1, -0.5, 1, 1]))
    dr, _, _ = ops.cross_entropy_backward(1.0, cache, shares=np.array([0, 1, np.nan, 1, 1]))
    assert np.isnan(dr[2]).all() and np.isfinite(dr[[0, 1, 4]]).all()  # NaN stays in its row
    with pytest.raises(ValueError, match=r"shares has shape \(4,\)"):
        ops.cross_entropy_backward(1.0, cache, shares=np.ones(4))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [*SHAPES, (1030, 3, 5), (0, 3, 5)], ids=str)
def test_both_passes_at_once_give_the_same_bits(isa: str, shape: tuple[int, int, int], smoothing: float) -> None:
    arrays, targets = case(shape)
    for dtype in (np.float32, np.float64):
        a = {name: array.astype(dtype) for name, array in arrays.items()}
        loss, cache = forward(a, targets, smoothing)
        want = (loss, *ops.cross_entropy_backward(0.37, cache))
        got = ops.cross_entropy_both(0.37, a["r"], a["weight"], a["bias"], targets, smoothing=smoothing)
        for x, y in zip(got, want, strict=True):
            np.testing.assert_array_equal(x, y)
    with pytest.raises(IndexError, match=r"cross_entropy_both: targets\[0\] is 5, expected an id < 5"):
        ops.cross_entropy_both(1.0, np.ones((1, 2)), np.ones((2, 5)), np.ones(5), np.array([5]))
