"""Adam, AdamW and SGD with global-norm clipping, over flat arrays and on a model."""

from __future__ import annotations

import dhyan
import numpy as np
import pytest
from dhyan import ops
from spec import model as reference

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


@pytest.mark.parametrize("kind", [dhyan.Adam, dhyan.AdamW, dhyan.SGD])
def test_a_predicted_window_moves_by_a_tenth(kind: type[dhyan.Adam]) -> None:
    """Its two parameters and no other: whole steps drive the centre to one end of the sentence, where it stays."""
    config, sizes = dhyan.ModelConfig, {"source_size": 7, "target_size": 6, "embedding": 3, "hidden": 4}
    model = dhyan.Seq2Seq(config(**sizes, attention="general", window="predictive:2"), seed=3, dtype="float64")
    plain = dhyan.Seq2Seq(config(**sizes, attention="general"), seed=3, dtype="float64")
    assert kind(plain)._slow == []
    optimizer, rng = kind(model, lr=0.01), np.random.default_rng(0)
    before = {name: value.copy() for name, value in model.parameters().items()}
    arrays = model._parameters.like()
    arrays.flat[...] = rng.standard_normal(model.flat.size)
    optimizer.step(arrays)
    moved = {name: value - before[name] for name, value in model.parameters().items()}
    # The same step of a model without slow parameters: the first one of each method is a function of the gradient.
    other = dhyan.Seq2Seq(model.config, seed=3, dtype="float64")
    whole = kind(other, lr=0.01)
    whole._slow = []
    whole.step(arrays)
    for name, value in other.parameters().items():
        share = 0.1 if name in ("attention.window_query", "attention.window_v") else 1
        np.testing.assert_allclose(moved[name], share * (value - before[name]), atol=1e-15, err_msg=name)
        assert np.abs(moved[name]).max() > 0
    assert (optimizer.m == whole.m).all()  # the running means know nothing of it


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("clip, decay, momentum", [(1.0, 0.0, 0.0), (1e9, 0.1, 0.9), (0.0, 0.0, 0.5), (2.0, 0.3, 0.9)])
@pytest.mark.parametrize("size", [*reference.SIZES, 10_001])
def test_sgd_step(size: int, clip: float, decay: float, momentum: float, dtype: str) -> None:
    rng = np.random.default_rng(size)
    p, m = rng.standard_normal(size).astype(dtype), np.zeros(size, dtype)
    expected = {"p": p.astype(np.float64)}, {"p": m.astype(np.float64)}
    options = {"lr": 0.05, "momentum": momentum, "weight_decay": decay, "clip": clip}
    for step in range(1, 5):
        g = rng.standard_normal(size).astype(dtype)
        before = g.copy()
        norm = ops.sgd_step(p, g, m, step=step, **options)
        *expected, exact = reference.sgd(expected[0], {"p": g.astype(np.float64)}, expected[1], **options)
        eps = np.finfo(dtype).eps
        assert abs(norm - exact) <= 4 * eps * exact
        np.testing.assert_array_equal(g, before)
        # each step adds the rounding of a few operations on numbers as large as these
        for actual, value in zip((p, m), expected, strict=True):
            np.testing.assert_allclose(actual, value["p"], rtol=0, atol=8 * eps * step * max(1, abs(value["p"]).max()))


def learned(optimizer: type[dhyan.Adam | dhyan.SGD], steps: int = 12, **options: float) -> np.ndarray:
    """The parameters after so many steps on one batch."""
    model, batch = tiny_model()
    made = optimizer(model, **options)
    for _ in range(steps):
        made.step(model.backward(model.forward(batch)[1]))
    assert made.steps == steps
    return model.flat.copy()


def test_the_three_on_a_model_follow_their_formulas() -> None:
    """Clipping is active: the norm of this gradient is above 0.1."""
    options = {"lr": 0.01, "weight_decay": 0.1, "clip": 0.1}
    model, batch = tiny_model()
    p = {name: value.copy() for name, value in model.parameters().items()}
    for kind in (dhyan.SGD, dhyan.Adam, dhyan.AdamW):
        q = {name: value.copy() for name, value in p.items()}
        m, v = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
        for step in range(1, 13):
            for name, array in model.parameters().items():
                array[...] = q[name]
            g = model.backward(model.forward(batch)[1])
            if kind is dhyan.SGD:
                q, m, norm = reference.sgd(q, g, m, momentum=0.9, **options)
            elif kind is dhyan.AdamW:
                q, m, v, norm = reference.adam(q, g, m, v, step=step, **options)
            else:
                d, norm = reference.penalised(q, g, 0.1, 0.1)
                q, m, v, _ = reference.adam(q, d, m, v, step=step, lr=0.01)
            assert norm > 0.1
            for name, array in model.parameters().items():
                array[...] = q[name]
        np.testing.assert_allclose(learned(kind, **options), model.flat, atol=1e-12, err_msg=kind.__name__)


def test_adamw_without_decay_is_adam_bit_for_bit_and_with_it_is_not() -> None:
    np.testing.assert_array_equal(learned(dhyan.Adam, lr=0.01), learned(dhyan.AdamW, lr=0.01))
    assert (learned(dhyan.Adam, lr=0.01, weight_decay=0.1) != learned(dhyan.AdamW, lr=0.01, weight_decay=0.1)).any()


@pytest.mark.parametrize("kind", [dhyan.Adam, dhyan.AdamW, dhyan.SGD])
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_every_optimizer_refuses_bad_gradients(kind: type[dhyan.Adam | dhyan.SGD], poison: float) -> None:
    model, batch = tiny_model()
    optimizer = kind(model, lr=0.01, weight_decay=0.1)
    gradients = model.backward(model.forward(batch)[1])
    before, state = model.flat.copy(), {name: array.copy() for name, array in optimizer.state().items()}
    poisoned = gradients | {"readout.bias": np.full_like(gradients["readout.bias"], poison)}
    with pytest.raises(dhyan.NumericError, match=rf"{kind.__name__}: the gradient of readout\.bias .* at step 1"):
        optimizer.step(poisoned)
    np.testing.assert_array_equal(model.flat, before)
    assert optimizer.steps == 0
    for name, array in optimizer.state().items():
        np.testing.assert_array_equal(array, state[name])


@pytest.mark.parametrize("kind, options, words", [
    (dhyan.Adam, dict(weight_decay=-1.0), "Adam: weight_decay is -1.0"),
    (dhyan.AdamW, dict(betas=(0.9, 1.0)), r"AdamW: betas\[1\] is 1.0, expected 0 <= betas\[1\] < 1"),
    (dhyan.AdamW, dict(eps=np.nan), "AdamW: eps is nan"), (dhyan.SGD, dict(clip=np.inf), "SGD: clip is inf"),
    (dhyan.SGD, dict(momentum=1.0), "SGD: momentum is 1.0"), (dhyan.SGD, dict(momentum=-0.1), "SGD: momentum is -0.1"),
    (dhyan.SGD, dict(lr=0.0), "SGD: lr is 0.0"),
])  # fmt: skip
def test_bad_options_name_the_optimizer(kind: type, options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(tiny_model()[0], **options)
