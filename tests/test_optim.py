"""Adam with global-norm clipping, in one pass over flat arrays, and on a model."""

from __future__ import annotations

import dhyan
import numpy as np
import pytest
import reference_model as reference
from dhyan import model_ops as ops

DEFAULTS = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0, "clip": 1.0}


def tiny_model(dtype: str = "float64") -> tuple[dhyan.Seq2Seq, dhyan.Batch]:
    config = dhyan.ModelConfig(source_size=7, target_size=6, embedding=3, hidden=4, cell="gru", dropout=0.0)
    source, target = np.array([[4, 5, 2], [6, 2, 0]]), np.array([[1, 4, 5, 2], [1, 5, 2, 0]])
    return dhyan.Seq2Seq(config, seed=3, dtype=dtype), dhyan.Batch(source, np.array([3, 2]), target, np.array([4, 3]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip, decay", [(1.0, 0.0), (1e9, 0.1)])
@pytest.mark.parametrize("size", [*reference.SIZES, 10_001])
def test_adam_step(isa: str, size: int, clip: float, decay: float, dtype: str) -> None:
    rng = np.random.default_rng(size)
    p, m, v = rng.standard_normal(size).astype(dtype), np.zeros(size, dtype), np.zeros(size, dtype)
    expected = {"p": p.astype(np.float64)}, {"p": m.astype(np.float64)}, {"p": v.astype(np.float64)}
    options = DEFAULTS | {"clip": clip, "weight_decay": decay}
    for step in range(1, 5):
        g = rng.standard_normal(size).astype(dtype)
        norm = ops.adam_step(p, g, m, v, step=step, **options)
        *expected, exact = reference.adam(expected[0], {"p": g.astype(np.float64)}, *expected[1:], step=step, **options)
        eps = np.finfo(dtype).eps
        assert abs(norm - exact) <= 4 * eps * exact
        # each step adds the rounding of a few operations on numbers of size 1 (parameters) and below (moments)
        for actual, value in zip((p, m, v), expected, strict=True):
            np.testing.assert_allclose(actual, value["p"], rtol=0, atol=8 * eps * step * max(1, abs(value["p"]).max()))


def test_first_step_is_the_learning_rate_by_hand() -> None:
    """Bias correction makes the first step lr * sign(g): the paper's section 2.1."""
    p, g = np.array([1.0, 1.0, 1.0]), np.array([0.5, -2.0, 0.0])
    m, v = np.zeros(3), np.zeros(3)
    ops.adam_step(p, g, m, v, step=1, **(DEFAULTS | {"clip": 1e9, "eps": 0.0 + 1e-300}))
    np.testing.assert_allclose(p, [0.99, 1.01, 1.0], rtol=1e-14)


def test_clipping_scales_the_whole_gradient() -> None:
    g = np.array([3.0, 4.0])
    m, v = np.zeros(2), np.zeros(2)
    assert ops.adam_step(np.zeros(2), g, m, v, step=1, **DEFAULTS) == 5.0
    np.testing.assert_allclose(m, 0.1 * g / 5, rtol=1e-14)
    np.testing.assert_array_equal(g, [3.0, 4.0])


def test_norm_of_huge_and_tiny_gradients() -> None:
    """float32 squares would overflow or vanish."""
    for size in (1e25, 1e-30):
        g = np.full(4, size, np.float32)
        zeros = [np.zeros(4, np.float32) for _ in range(3)]
        np.testing.assert_allclose(ops.adam_step(zeros[0], g, *zeros[1:], step=1, **DEFAULTS), 2 * size, rtol=1e-6)
        assert all(np.isfinite(a).all() for a in zeros)


def test_bits_do_not_depend_on_threads(isa: str) -> None:
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(100_003).astype(np.float32) for _ in range(4)]
    start[3] = start[3] ** 2
    before, results = dhyan.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 4, 7, 8, 16):
            dhyan.set_num_threads(threads)
            p, g, m, v = (a.copy() for a in start)
            norm = ops.adam_step(p, g, m, v, step=3, **DEFAULTS)
            results.append((np.float64(norm), p, m, v))
    finally:
        dhyan.set_num_threads(before)
    for other in results[1:]:
        for one, same in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


def test_adam_on_a_model_follows_the_formula() -> None:
    model, batch = tiny_model()
    optimizer = dhyan.Adam(model, lr=0.01, clip=1.0)
    p = {name: value.copy() for name, value in model.parameters().items()}
    m, v = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    losses = []
    for step in range(1, 31):
        loss, cache = model.forward(batch)
        gradients = model.backward(cache)
        losses.append(loss)
        p, m, v, _ = reference.adam(p, gradients, m, v, step=step, lr=0.01, clip=1.0)
        optimizer.step(gradients)
        for name, value in model.parameters().items():
            np.testing.assert_allclose(value, p[name], atol=1e-12, err_msg=f"step {step} {name}")
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_bad_gradients_are_refused_and_named(poison: float) -> None:
    model, batch = tiny_model()
    optimizer = dhyan.Adam(model, lr=0.01)
    gradients = model.backward(model.forward(batch)[1])
    before = {name: value.copy() for name, value in model.parameters().items()}
    poisoned = gradients | {"readout.bias": np.full_like(gradients["readout.bias"], poison)}
    with pytest.raises(ArithmeticError, match=r"readout\.bias"):
        optimizer.step(poisoned)
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[name])
    optimizer.step(model.backward(model.forward(batch)[1]))
    clean, _ = tiny_model()
    dhyan.Adam(clean, lr=0.01).step(clean.backward(clean.forward(batch)[1]))
    for name, value in model.parameters().items():
        np.testing.assert_array_equal(value, clean.parameters()[name])


@pytest.mark.parametrize("lr", [0.0, -1.0, np.nan, np.inf])
def test_learning_rate_must_be_positive_and_finite(lr: float) -> None:
    model, _ = tiny_model()
    with pytest.raises(ValueError, match=r"learning rate|lr"):
        dhyan.Adam(model, lr=lr)


def test_gradients_must_be_those_of_the_model() -> None:
    model, batch = tiny_model()
    gradients = model.backward(model.forward(batch)[1])
    missing = {name: value for name, value in gradients.items() if name != "output.bias"}
    with pytest.raises((ValueError, KeyError), match=r"output\.bias"):
        dhyan.Adam(model).step(missing)
