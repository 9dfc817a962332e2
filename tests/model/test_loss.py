"""Losses on attention weights: against their definitions, gradients by differences, and zeros that stay harmless."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dhyan.model.loss import coverage_loss, guided_loss

DTYPES = (np.float32, np.float64)


def rows(seed: int, count: int, width: int) -> np.ndarray:
    """Weights (count, width), each row a softmax."""
    scores = np.random.default_rng(seed).normal(size=(count, width))
    weights = np.exp(scores)
    return weights / weights.sum(1, keepdims=True)


def links(seed: int, count: int, width: int) -> np.ndarray:
    """An alignment (count, width): 0 to 2 linked positions a row, equal weights."""
    rng = np.random.default_rng(seed)
    alignment = np.zeros((count, width))
    for row in alignment:
        chosen = rng.choice(width, rng.integers(0, 3), replace=False)
        row[chosen] = 1 / max(len(chosen), 1)
    return alignment


def guided_by_definition(weights: np.ndarray, alignment: np.ndarray) -> complex:
    """-1/M sum alignment log weights; complex weights for the complex step."""
    linked = [t for t in range(len(alignment)) if alignment[t].any()]
    total = sum(alignment[t, s] * np.log(weights[t, s]) for t in linked for s in np.flatnonzero(alignment[t]))
    return -total / max(len(linked), 1)


def coverage_by_definition(weights: np.ndarray, steps: np.ndarray) -> float:
    """Sentence by sentence, row by row."""
    total, first = 0.0, 0
    for count in steps:
        sentence = weights[first : first + count]
        total += sum(np.minimum(sentence[t], sentence[:t].sum(0)).sum() for t in range(count))
        first += count
    return total / max(len(weights), 1)


# ---------------------------------------------------------------- guided


@pytest.mark.parametrize("count, width", [(1, 1), (1, 5), (7, 4), (40, 13)])
def test_guided_is_its_definition_and_gradient(count: int, width: int) -> None:
    weights, alignment = rows(0, count, width), links(1, count, width)
    loss, dweights = guided_loss(weights, alignment)
    assert loss == pytest.approx(guided_by_definition(weights, alignment).real, rel=1e-13)
    for t in range(count):
        for s in range(width):
            moved = weights.astype(complex)
            moved[t, s] += 1e-30j
            assert dweights[t, s] == pytest.approx(guided_by_definition(moved, alignment).imag / 1e-30, rel=1e-13)


def test_guided_of_a_hand() -> None:
    """Two of three rows are linked: -(log 1/4 + (log 1/2 + log 1/8) / 2) / 2 = (2 + 2) log 2 / 2."""
    weights = np.array([[0.25, 0.75], [0.5, 0.125], [0.3, 0.7]])
    alignment = np.array([[1, 0], [0.5, 0.5], [0, 0]], float)
    loss, dweights = guided_loss(weights, alignment)
    assert loss == pytest.approx(2 * math.log(2))
    np.testing.assert_allclose(dweights, [[-2, 0], [-0.5, -2], [0, 0]], rtol=1e-15)


def test_guided_is_least_where_the_weights_are_the_alignment() -> None:
    alignment = links(2, 30, 6)
    best, _ = guided_loss(alignment, alignment)
    entropy = -(alignment[alignment > 0] * np.log(alignment[alignment > 0])).sum() / alignment.any(1).sum()
    assert best == pytest.approx(entropy)
    for seed in range(20):
        assert guided_loss(0.9 * alignment + 0.1 * rows(seed, 30, 6), alignment)[0] > best


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_that_was_cut_away_gives_no_gradient_and_a_finite_loss(dtype: type) -> None:
    tiny = float(np.finfo(dtype).tiny)
    weights = np.array([[0, 1], [tiny, 1 - tiny], [tiny / 2, 1], [2 * tiny, 1], [0.5, 0.5]], dtype)
    alignment = np.array([[1, 0]] * 5, dtype)
    loss, dweights = guided_loss(weights, alignment)
    assert loss == pytest.approx(-(3 * math.log(tiny) + math.log(2 * tiny) + math.log(0.5)) / 5, rel=1e-6)
    assert dweights.dtype == dtype and np.isfinite(dweights).all()
    np.testing.assert_array_equal(dweights[:3], 0)
    np.testing.assert_allclose(dweights[3:, 0], [-0.1 / tiny, -0.4], rtol=1e-6)


def test_guided_where_nothing_is_linked() -> None:
    for shape in ((0, 0), (0, 4), (3, 0), (3, 4)):
        loss, dweights = guided_loss(np.ones(shape, np.float32), np.zeros(shape))
        assert loss == 0 and dweights.shape == shape and not dweights.any() and dweights.dtype == np.float32


def test_guided_of_nan_is_nan_and_not_a_number_that_looks_good() -> None:
    assert math.isnan(guided_loss(np.array([[np.nan, 1.0]]), np.array([[1.0, 0.0]]))[0])
    loss, dweights = guided_loss(np.array([[np.nan, 0.5]]), np.array([[0.0, 1.0]]))  # nobody asked about it
    assert loss == pytest.approx(math.log(2)) and dweights.tolist() == [[0, -2]]


# ---------------------------------------------------------------- coverage


@pytest.mark.parametrize("steps", [[1], [4], [3, 1, 5], [2, 0, 2, 7, 1], [0, 0, 3]])
def test_coverage_is_its_definition_and_gradient(steps: list[int]) -> None:
    counts = np.array(steps, np.int64)
    weights = rows(3, int(counts.sum()), 5)
    loss, dweights = coverage_loss(weights, counts)
    assert loss == pytest.approx(coverage_by_definition(weights, counts), rel=1e-13)
    step = 1e-6  # piecewise linear: differences are exact but for rounding, 1e-16 / 1e-6
    for t in range(len(weights)):
        for s in range(5):
            up, down = weights.copy(), weights.copy()
            up[t, s] += step
            down[t, s] -= step
            slope = (coverage_by_definition(up, counts) - coverage_by_definition(down, counts)) / (2 * step)
            assert dweights[t, s] == pytest.approx(slope, abs=1e-9)


def test_coverage_of_a_hand() -> None:
    """Rows 1 and 2 read again .5 and .25 of the first, row 2 .5 of the second; the other sentence starts afresh."""
    weights = np.array([[1, 0], [0.5, 0.5], [0.25, 0.75], [1, 0]])
    loss, dweights = coverage_loss(weights, np.array([3, 1]))
    assert loss == (0.5 + 0.25 + 0.5) / 4
    np.testing.assert_array_equal(dweights, [[0, 0.5], [0.25, 0.25], [0.25, 0], [0, 0]])


def test_coverage_of_ties() -> None:
    """A row that repeats the one before feels it, where there is something to feel."""
    loss, dweights = coverage_loss(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([2]))
    assert loss == 0.5 and dweights.tolist() == [[0, 0], [0.5, 0]]


def test_coverage_of_one_reading_each_is_nothing() -> None:
    loss, dweights = coverage_loss(np.eye(4, dtype=np.float32), np.array([4]))
    assert loss == 0 and dweights.dtype == np.float32
    assert dweights[0, 1:].all() and not dweights[:, 0][:1].any()  # reading ahead would cost later


def test_coverage_does_not_see_the_padding() -> None:
    weights, steps = rows(5, 6, 4), np.array([4, 2])
    padded = np.concatenate([weights, np.zeros((6, 3))], 1)
    loss, dweights = coverage_loss(padded, steps)
    plain = coverage_loss(weights, steps)
    assert loss == plain[0] and dweights[:, :4].tobytes() == plain[1].tobytes()
    assert not dweights[:, 4:].any()


def test_coverage_of_a_sentence_does_not_depend_on_its_neighbours() -> None:
    weights, steps = rows(6, 9, 4), np.array([2, 4, 3])
    alone = np.rint(coverage_loss(weights[2:6], steps[1:2])[1] * 4)  # whole numbers of rows, over N
    np.testing.assert_array_equal(np.rint(coverage_loss(weights, steps)[1][2:6] * 9), alone)


def test_coverage_of_nothing() -> None:
    for shape in ((0, 0), (0, 4)):
        for steps in ([], [0], [0, 0]):
            loss, dweights = coverage_loss(np.ones(shape), np.array(steps, np.int64))
            assert loss == 0 and dweights.shape == shape
    assert coverage_loss(np.ones((3, 0)), np.array([3]))[0] == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_are_as_good_as_float64(dtype: type) -> None:
    weights, steps = rows(7, 3000, 9).astype(dtype), np.array([1000, 2000])
    exact = coverage_by_definition(weights.astype(np.float64), steps)
    assert coverage_loss(weights, steps)[0] == pytest.approx(exact, rel=1e-12)
    alignment = links(8, 3000, 9)
    exact = guided_by_definition(weights.astype(np.float64), alignment).real
    assert guided_loss(weights, alignment)[0] == pytest.approx(exact, rel=1e-12)


def test_inputs_stay_as_they_are() -> None:
    weights, alignment, steps = rows(9, 5, 3), links(9, 5, 3), np.array([3, 2])
    for array in (weights, alignment, steps):
        array.flags.writeable = False
    strided = np.repeat(weights, 2, axis=1)[:, ::2]
    assert guided_loss(strided, alignment)[1].tobytes() == guided_loss(weights, alignment)[1].tobytes()
    assert coverage_loss(strided, steps)[1].tobytes() == coverage_loss(weights, steps)[1].tobytes()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: guided_loss([[1.0]], np.ones((1, 1))), TypeError, "guided_loss: weights is a list, expected an array"),
        (lambda: guided_loss(np.ones((1, 1)), np.ones((1, 1), int)), TypeError, "alignment is an array of int64"),
        (lambda: guided_loss(np.ones((2, 3)), np.ones((3, 2))), ValueError, r"has shape \(3, 2\), expected \(2, 3\)"),
        (lambda: guided_loss(np.ones(3), np.ones(3)), ValueError, r"weights has shape \(3,\), expected \(N, S\)"),
        (lambda: coverage_loss(np.ones((2, 3), np.float16), np.array([2])), TypeError, "is an array of float16"),
        (lambda: coverage_loss(np.ones((2, 3)), np.array([2.0])), TypeError, "steps is an array of float64, expected"),
        (lambda: coverage_loss(np.ones((2, 3)), np.array([1])), ValueError, r"of shape \(1,\) sum to 1, expected"),
        (lambda: coverage_loss(np.ones((2, 3)), np.array([3, -1])), ValueError, "none negative"),
    ],
)  # fmt: skip
def test_bad_input(call: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
