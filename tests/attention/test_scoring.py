"""The registry, and the gradients of keys: every registered scoring by central differences, new ones too."""

from __future__ import annotations

import re
from pathlib import Path

import dhyan
import numpy as np
import pytest
from dhyan.attention.scoring import KeysGradient, Rows, Scoring, Sizes, register_scoring, registry, unit_vectors
from dhyan.attention.scorings import scoring, scorings

CONTRIBUTING = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
SIZES = Sizes(query=4, memory=8, units=6, max_source=7)
FEEDBACK = [name for name in scorings() if scoring(name).feedback]


def parameters_of(name: str, sizes: Sizes = SIZES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=shape) for key, shape in scoring(name).shapes(sizes).items()}


# ------------------------------------------------------------------------------------------------ the registry


def test_every_scoring_says_what_it_is() -> None:
    for name in scorings():
        one = scoring(name)
        assert one.name == name and one.source and type(one).__doc__ and one.feedback in ("", "last", "sum")
        assert not (one.scorer_is_rule and (one.content or one.feedback)) and not one.step_by_step


def test_an_unknown_scoring_lists_the_nearest_first() -> None:
    with pytest.raises(ValueError, match=r"'locaton'.*: location"):
        scoring("locaton")


def test_the_example_of_the_contributing_page() -> None:
    """Its block, run as it stands: one class, and the scoring is there for all."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    block = re.search(r"```python\n(import dhyan.*?class Damped.*?)```", text, re.DOTALL)
    assert block is not None
    before = scorings()
    exec(block[1], {"__name__": "damped"})
    try:
        assert scorings() == [*before, "damped"]
        rng = np.random.default_rng(0)
        query, memory = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 5, 4))
        damped = dhyan.Attention("damped", 4, 4, dtype="float64")
        dot = dhyan.Attention("dot", 4, 4, dtype="float64", temperature=4.0)
        for a, b in zip(damped.forward(query, memory)[0], dot.forward(query, memory)[0], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)
    finally:
        del registry["damped"]
    assert scorings() == before


def test_what_a_bare_scoring_does_not_have() -> None:
    bare = register_scoring(type("Bare", (Scoring,), {"name": "bare"}))()
    del registry["bare"]
    rows = Rows(np.zeros((1, 8)), np.zeros(1, np.int64))
    calls = (lambda: bare.keys({}, rows, SIZES), lambda: bare.scorer({}, SIZES))
    for call in (*calls, lambda: bare.feedback_keys({}, np.zeros((1, 1)))):
        with pytest.raises(NotImplementedError):
            call()
    assert bare.shapes(SIZES) == {}


# ------------------------------------------------------------------------------------------------ keys


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("name", [name for name in scorings() if not scoring(name).scorer_is_rule])
def test_keys_backward_by_central_differences(name: str, normalized: bool) -> None:
    """Of <dkeys, keys> along random directions; what the scorer's own arrays say comes on top (here: nothing)."""
    one, sizes = scoring(name), Sizes(query=4, memory=8, units=6, max_source=7, normalized=normalized)
    if normalized and "g" not in one.shapes(sizes):
        return
    rng, p = np.random.default_rng(1), parameters_of(name, sizes)
    memory, position = rng.normal(size=(5, 8)), np.array([0, 1, 2, 0, 1])
    keys = one.keys(p, Rows(memory, position), sizes)
    assert keys is not None
    dkeys = rng.normal(size=keys.shape)
    gradients = {key: np.zeros_like(array) for key, array in p.items()}
    into = one.gradient_targets(gradients, sizes)
    for array in (into.query, into.w):
        if array is not None:
            array[...] = 0
    c = KeysGradient(p, Rows(memory, position), keys, dkeys, 0.0, gradients, sizes, into)
    dmemory = one.keys_backward(c)
    dmemory = np.zeros_like(memory) if dmemory is None else dmemory

    def value(h: float, along: dict[str, np.ndarray], flow: np.ndarray) -> float:
        moved = one.keys({key: p[key] + h * along[key] for key in p}, Rows(memory + h * flow, position), sizes)
        assert moved is not None
        return float((moved * dkeys).sum())

    for _ in range(3):
        along, flow = {key: rng.normal(size=array.shape) for key, array in p.items()}, rng.normal(size=memory.shape)
        slope = (value(1e-6, along, flow) - value(-1e-6, along, flow)) / 2e-6
        exact = sum(float((gradients[key] * along[key]).sum()) for key in p) + float((dmemory * flow).sum())
        assert abs(slope - exact) < 1e-7 * max(1.0, abs(exact))


def test_a_column_of_the_location_matrix_is_the_key_of_its_position() -> None:
    p, position = parameters_of("location"), np.array([0, 1, 2, 0, 6])
    keys = scoring("location").keys(p, Rows(np.zeros((5, 8)), position), SIZES)
    np.testing.assert_array_equal(keys, p["weight"].T[position])
    with pytest.raises(ValueError, match=r"a source has 8 positions, expected at most max_source = 7"):
        scoring("location").keys(p, Rows(np.zeros((1, 8)), np.array([7])), SIZES)


def test_v_is_a_direction_and_a_length_when_normalized() -> None:
    p = parameters_of("additive", Sizes(4, 8, 6, normalized=True))
    w = scoring("additive").scorer(p, Sizes(4, 8, 6, normalized=True)).w
    assert w is not None and abs(np.linalg.norm(w) - abs(p["g"][0])) < 1e-14
    np.testing.assert_allclose(w / p["g"], unit_vectors(p["v"]), rtol=1e-14)


# ------------------------------------------------------------------------------------------------ feedback


@pytest.mark.parametrize("S", [0, 1, 7, 8, 15, 40])
def test_location_features_are_a_convolution(S: int) -> None:
    """NumPy's own, which turns the filter round; longer and shorter than the filter."""
    p, weights = parameters_of("location_sensitive"), np.random.default_rng(2).random((2, S))
    found = scoring("location_sensitive").feedback_keys(p, weights)
    assert found.shape == (2, S, 6)
    for b in range(2 * (S > 0)):
        full = [np.convolve(weights[b], p["filters"][::-1, c])[7 : 7 + S] for c in range(10)]
        np.testing.assert_allclose(found[b], np.stack(full, 1) @ p["location"], atol=1e-13)


def test_coverage_is_a_rank_one_term() -> None:
    p, weights = parameters_of("coverage"), np.random.default_rng(2).random((2, 5))
    found = scoring("coverage").feedback_keys(p, weights)
    np.testing.assert_allclose(found, weights[:, :, None] * p["coverage"], rtol=1e-15)


@pytest.mark.parametrize("shape", [(2, 20), (3, 1), (0, 4), (2, 0)])
@pytest.mark.parametrize("name", FEEDBACK)
def test_feedback_backward_is_the_adjoint(name: str, shape: tuple[int, int]) -> None:
    """<dkeys, F w'> = <F^T dkeys, w'> for any w', F being linear in the weights; so it is in each parameter."""
    one, p, rng = scoring(name), parameters_of(name), np.random.default_rng(3)
    weights, other, dkeys = rng.random(shape), rng.random(shape), rng.normal(size=(*shape, 6))
    gradients = {key: np.zeros_like(array) for key, array in p.items()}
    dweights = one.feedback_backward(p, weights, dkeys, gradients)
    assert dweights.shape == shape
    np.testing.assert_allclose((one.feedback_keys(p, other) * dkeys).sum(), (dweights * other).sum(), atol=1e-11)
    for key in set(one.shapes(SIZES)) - {"query", "memory", "bias", "v"}:
        moved = p | {key: rng.normal(size=p[key].shape)}
        through = (one.feedback_keys(moved, weights) * dkeys).sum()
        np.testing.assert_allclose(through, (gradients[key] * moved[key]).sum(), atol=1e-11)
    before = {key: array.copy() for key, array in gradients.items()}
    one.feedback_backward(p, weights, dkeys, gradients)  # added, not written
    for key, array in gradients.items():
        np.testing.assert_array_equal(array, 2 * before[key])
