"""Sparsemax and monotonic alignment against tests/spec/ops.py and their definitions: values, gradients, edges, bits.

One file though above 400 lines: most tests run over both, on the same cases.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from dhyan import ops
from spec import ops as reference

SIZES = (1, 2, 5, 7, 13, 40, 100)
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}  # of values of at most 1; per-quantity gates are below
FORMS = ("sparsemax", "monotonic", "hard")


@dataclass
class Case:
    """Scores of one call with ragged ranges or a mask or both, and the gradient that flows back."""

    scores: np.ndarray
    previous: np.ndarray | None
    begin: np.ndarray | None
    end: np.ndarray | None
    mask: np.ndarray | None
    dweights: np.ndarray

    @property
    def allowed(self) -> np.ndarray:
        return reference.may_attend(self.scores.shape, self.begin, self.end, self.mask)

    @property
    def may(self) -> dict[str, np.ndarray | None]:
        return {"begin": self.begin, "end": self.end, "mask": self.mask}

    def forward(self, form: str) -> np.ndarray:
        if form == "sparsemax":
            return ops.sparsemax_forward(self.scores, **self.may)
        return ops.monotonic_forward(self.scores, previous=self.previous, hard=form == "hard", **self.may)

    def backward(self, form: str, weights: np.ndarray) -> list[np.ndarray]:
        """dscores, and dprevious where there is one. Hard decisions have no gradient: nothing."""
        if form == "sparsemax":
            return [ops.sparsemax_backward(self.dweights, weights)]
        if form == "hard":
            return []
        dscores, dprevious = ops.monotonic_backward(
            self.dweights, self.scores, weights, previous=self.previous, **self.may
        )
        assert (dprevious is None) == (self.previous is None)
        return [dscores] if dprevious is None else [dscores, dprevious]

    def everything(self, form: str) -> list[np.ndarray]:
        weights = self.forward(form)
        return [weights, *self.backward(form, weights)]

    def expected(self, form: str) -> list[np.ndarray]:
        scores, dweights = self.scores.astype(float), self.dweights.astype(float)
        previous = None if self.previous is None else self.previous.astype(float)
        if form == "sparsemax":
            weights = reference.sparsemax(scores, self.allowed)
            return [weights, reference.sparsemax_backward(dweights, weights)]
        weights = reference.monotonic(scores, self.allowed, previous, form == "hard")
        if form == "hard":
            return [weights]
        dscores, dprevious = reference.monotonic_backward(dweights, scores, self.allowed, previous)
        return [weights, dscores] if previous is None else [weights, dscores, dprevious]


def make_case(rng: np.random.Generator, B: int, T: int, S: int, dtype: type, spread: float = 1.0) -> Case:
    begin, end = np.sort(rng.integers(0, S + 1, (2, B, T)), axis=0)
    from_start, to_end, masked, continued = rng.integers(0, 2, 4)
    return Case(
        scores=(rng.normal(size=(B, T, S)) * spread).astype(dtype),
        previous=rng.dirichlet(np.ones(S), B).astype(dtype) if continued and S else None,
        begin=begin if from_start else None,
        end=end if to_end else None,
        mask=rng.random((B, T, S)) < 0.7 if masked else None,
        dweights=rng.normal(size=(B, T, S)).astype(dtype),
    )


def assert_same_bits(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.tobytes() == y.tobytes()


# ---- values and gradients ----


def test_the_example_of_the_docstring(isa: str) -> None:
    scores = np.array([[[0.9, 0.7, 0.1, -2.0]]])
    np.testing.assert_allclose(ops.sparsemax_forward(scores), [[[0.6, 0.4, 0, 0]]], rtol=1e-15)
    np.testing.assert_allclose(ops.softmax_forward(scores), [[[0.43, 0.35, 0.19, 0.02]]], atol=0.005)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", FORMS)
def test_values_and_gradients_agree_with_the_reference(isa: str, dtype: type, form: str) -> None:
    rng = np.random.default_rng(0)
    for S, T, spread in itertools.product(SIZES, (1, 2, 7), (0.05, 1, 20)):
        c = make_case(rng, int(rng.integers(1, 4)), T, S, dtype, spread)
        for got, want in zip(c.everything(form), c.expected(form), strict=True):
            assert got.dtype == dtype and got.shape == want.shape and got.flags.c_contiguous
            assert np.abs(got - want).max() <= TOLERANCE[dtype] * max(1.0, np.abs(want).max())


@pytest.mark.parametrize("S", SIZES)
def test_gradients_by_complex_step(isa: str, S: int) -> None:
    rng = np.random.default_rng(S)
    for T in (1, 3):
        c = make_case(rng, 2, T, S, np.float64, 0.3)

        def sparse(scores: np.ndarray, c: Case = c) -> np.ndarray:
            return (reference.sparsemax(scores, c.allowed) * c.dweights).sum()

        def walk(scores: np.ndarray, previous: np.ndarray | None = None, c: Case = c) -> np.ndarray:
            return (reference.monotonic(scores, c.allowed, previous) * c.dweights).sum()

        for form, loss in (("sparsemax", sparse), ("monotonic", walk)):
            inputs = [c.scores] if form == "sparsemax" or c.previous is None else [c.scores, c.previous]
            for i, got in enumerate(c.backward(form, c.forward(form))):
                np.testing.assert_allclose(got, reference.complex_step(loss, inputs, i), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", ["sparsemax", "monotonic"])
def test_gradients_by_central_differences(isa: str, form: str) -> None:
    """Of the op itself, along random lines; sparsemax is linear there unless a line crosses a kink (checked)."""
    rng = np.random.default_rng(1)
    for S in (2, 5, 13, 40):
        c = make_case(rng, 2, 3, S, np.float64)
        weights = c.forward(form)
        dscores = c.backward(form, weights)[0]
        for _ in range(5):
            along, start, h = rng.normal(size=c.scores.shape), c.scores, 1e-5
            ends = []
            for c.scores in (start + h * along, start - h * along):
                ends.append(c.forward(form))
                if form == "sparsemax":
                    np.testing.assert_array_equal(ends[-1] > 0, weights > 0)
            c.scores = start
            slope = ((ends[0] - ends[1]) * c.dweights).sum() / (2 * h)
            np.testing.assert_allclose((dscores * along).sum(), slope, rtol=1e-6, atol=1e-9)


# ---- sparsemax against its definition ----


@pytest.mark.parametrize("S", SIZES)
def test_sparsemax_is_the_nearest_point_of_the_simplex(isa: str, S: int) -> None:
    rng = np.random.default_rng(S)
    for spread in (1e-3, 0.1, 1, 10):
        x = rng.normal(size=(2, 3, S)) * spread
        w = ops.sparsemax_forward(x)
        assert (w >= 0).all()
        np.testing.assert_allclose(w.sum(-1), 1, rtol=4 * np.finfo(float).eps)
        # Karush, Kuhn and Tucker: one tau a row, score - tau on the support, no score above tau elsewhere
        tau = np.where(w > 0, x - w, -np.inf).max(-1, keepdims=True)
        assert np.abs(np.where(w > 0, x - w - tau, 0)).max() <= 1e-14 * max(1, spread)
        assert (np.where(w > 0, -np.inf, x) <= tau + 1e-15 * max(1, spread)).all()
        for other in rng.dirichlet(np.full(S, 0.3), (20, 2, 3)):
            assert (np.square(w - x).sum(-1) <= np.square(other - x).sum(-1) + 1e-12).all()


def exact_sparsemax(scores: list[Fraction]) -> list[Fraction]:
    ordered = sorted(scores, reverse=True)
    size = max(k for k in range(1, len(ordered) + 1) if k * ordered[k - 1] > sum(ordered[:k]) - 1)
    tau = (sum(ordered[:size]) - 1) / size
    return [max(x - tau, Fraction(0)) for x in scores]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_support_is_exact(isa: str, dtype: type) -> None:
    """On a grid of eighths ties and scores that equal tau are common; weights are the exact ones, rounded."""
    rng = np.random.default_rng(2)
    for S in (*SIZES, 16, 32, 33):
        x = (rng.integers(-12, 1, (1, 40, S)) / 8).astype(dtype)
        for row, got in zip(x[0].tolist(), ops.sparsemax_forward(x)[0], strict=True):
            want = np.array(exact_sparsemax([Fraction(v) for v in row]), dtype)
            np.testing.assert_array_equal(got > 0, want > 0)
            assert (np.abs(got - want) <= np.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("magnitude", [1e-45, 1e-20, 1e-6, 1e-3, 1, 1e3, 1e9, 1e17])
def test_rows_of_sparsemax_sum_to_one_at_any_magnitude(isa: str, dtype: type, magnitude: float) -> None:
    rng = np.random.default_rng(3)
    for S in (1, 2, 17, 100, 1000, 65536):
        for scores in (rng.normal(size=S), np.r_[0, 1e-3 * rng.random(S - 1) - 0.5], np.full(S, -1.0)):
            w = ops.sparsemax_forward((scores * magnitude).astype(dtype)[None, None])
            assert abs(math.fsum(w.ravel().tolist()) - 1) <= 2 * np.finfo(dtype).eps
            assert (w >= 0).all() and (w <= 1).all()


def test_sparsemax_weights_within_one_eps_of_the_largest(isa: str) -> None:
    rng = np.random.default_rng(4)
    for spread, S in itertools.product((0.01, 1, 10, 1000), (1, 2, 17, 100, 1000)):
        x = (rng.normal(size=(1, 5, S)) * spread).astype(np.float32)
        exact = reference.sparsemax(x.astype(float), np.ones(x.shape, bool))
        error = np.abs(ops.sparsemax_forward(x) - exact)
        assert (error <= 2.0**-23 * exact + 1e-14).all()


# ---- monotonic alignment against its definition ----


def by_enumeration(p: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """weights (T, S): every outcome of every coin, and where the walk then stops."""
    T, S = p.shape
    weights = np.zeros((T, S))
    for outcome in itertools.product((0, 1), repeat=T * S):
        coins = np.reshape(outcome, (T, S))
        chance = np.where(coins == 1, p, 1 - p).prod()
        for start in range(S):
            at = start
            for t in range(T):
                at = next((s for s in range(at, S) if coins[t, s]), S)
                if at == S:
                    break
                weights[t, at] += chance * previous[start]
    return weights


@pytest.mark.parametrize(("T", "S"), [(1, 1), (1, 5), (2, 3), (3, 3), (3, 2), (4, 2), (5, 1)])
def test_monotonic_weights_are_the_chances_of_all_walks(isa: str, T: int, S: int) -> None:
    rng = np.random.default_rng(T + 10 * S)
    scores, mask = rng.normal(size=(2, T, S)), rng.random((2, T, S)) < 0.8
    previous = rng.dirichlet(np.ones(S), 2) * [[1], [0.7]]
    p = np.where(mask, 1 / (1 + np.exp(-scores)), 0)
    for start in (previous, None):
        got = ops.monotonic_forward(scores, previous=start, mask=mask)
        for b in range(2):
            want = by_enumeration(p[b], np.eye(S)[0] if start is None else start[b])
            np.testing.assert_allclose(got[b], want, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_hard_form_is_the_limit_of_the_soft_one(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(5)
    for S in SIZES:
        c = make_case(rng, 3, 5, S, dtype)
        hard = c.forward("hard")
        c.scores = np.where(c.scores > 0, 1e4, -1e4).astype(dtype)
        np.testing.assert_array_equal(c.forward("monotonic"), hard)
        if c.previous is None:
            assert np.isin(hard, (0, 1)).all() and (hard.sum(-1) <= 1).all()


def test_a_hard_walk(isa: str) -> None:
    scores = np.array([[[-1, 2, 3, 0], [5, -1, -1, 1], [9, 9, 9, 0], [9, 9, 9, 9]]], np.float32)
    weights = [[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]  # row 2 walks off the end, 0 is not above 0
    np.testing.assert_array_equal(ops.monotonic_forward(scores, hard=True), [weights])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_rows_and_large_scores_stay_finite(isa: str, dtype: type) -> None:
    rng = np.random.default_rng(6)
    for scores in (
        rng.choice([-1e4, 1e4], (2, 4, 2000)),
        rng.uniform(-1e4, 1e4, (2, 4, 2000)),
        np.full((2, 4, 2000), -1e4),
        np.full((2, 4, 2000), 1e4),
        rng.normal(size=(2, 4, 2000)) - 5,
        rng.choice([-1e17, 1e17], (2, 4, 2000)),
    ):
        weights = ops.monotonic_forward(scores.astype(dtype))
        assert np.isfinite(weights).all() and (weights >= 0).all()
        sums = [1.0, *(weights[0].astype(float).sum(-1) / (1 + np.finfo(dtype).eps))]
        assert all(later <= earlier * (1 + 2 * np.finfo(dtype).eps) for earlier, later in itertools.pairwise(sums))
        for g in ops.monotonic_backward(np.ones_like(weights), scores.astype(dtype), weights, previous=weights[:, 0]):
            assert np.isfinite(g).all()


def test_monotonic_weights_of_a_row_within_one_eps(isa: str) -> None:
    rng = np.random.default_rng(7)
    for spread, S in itertools.product((0.1, 1, 5, 50), (1, 7, 100, 2000)):
        x, previous = (rng.normal(size=(1, 1, S)) * spread).astype(np.float32), rng.random((1, S)).astype(np.float32)
        small = np.exp(-np.abs(x[0, 0], dtype=float))
        stop, walk = np.where(x[0, 0] < 0, (small, np.ones(S)), (np.ones(S), small)) / (1 + small)
        exact, arriving = np.zeros(S), 0.0
        for s in range(S):
            arriving += float(previous[0, s])
            exact[s] = stop[s] * arriving
            arriving *= walk[s]
        error = np.abs(ops.monotonic_forward(x, previous=previous)[0, 0] - exact)
        assert (error <= 2.0**-23 * exact + 2.0**-149).all()


def test_gradients_within_a_few_eps_of_the_largest(isa: str) -> None:
    """float32: each row rounds its weights once, and what flows to the row before once."""
    rng = np.random.default_rng(8)
    for S, form in itertools.product((5, 40, 300), ("sparsemax", "monotonic")):
        c = make_case(rng, 3, 1, S, np.float32)
        weights = c.forward(form)
        exact = c.expected(form)[1:]
        for got, want in zip(c.backward(form, weights), exact, strict=True):
            assert np.abs(got - want).max() <= 4 * 2.0**-23 * np.abs(want).max()


# ---- masks and edges ----


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_masked_cannot_be_seen(isa: str, form: str, poison: float) -> None:
    rng = np.random.default_rng(9)
    for S, dtype in itertools.product(SIZES, (np.float32, np.float64)):
        for _ in range(4):
            c = make_case(rng, 2, 3, S, dtype)
            clean = c.everything(form)
            assert (clean[0][~c.allowed] == 0).all() and all(np.isfinite(x).all() for x in clean)
            c.scores[~c.allowed] = c.dweights[~c.allowed] = poison
            assert_same_bits(c.everything(form), clean)


def test_a_nan_stays_where_it_can_be_seen(isa: str) -> None:
    rng = np.random.default_rng(10)
    x = rng.normal(size=(3, 9, 20)).astype(np.float32)
    mask = rng.random(x.shape) < 0.7
    mask[1, 4, 6] = True
    bad = x.copy()
    bad[1, 4, 6] = np.nan
    w, seen = ops.sparsemax_forward(x, mask=mask), ops.sparsemax_forward(bad, mask=mask)
    np.testing.assert_array_equal(np.isnan(seen[1, 4]), mask[1, 4])
    assert np.isnan(ops.sparsemax_backward(x, seen)[1, 4][mask[1, 4]]).all()
    w[1, 4] = seen[1, 4] = 0
    np.testing.assert_array_equal(w, seen)

    for hard in (False, True):
        bad = np.ones_like(x) if hard else x.copy()
        w = ops.monotonic_forward(bad, hard=hard, mask=mask)
        bad[1, 4, 6] = np.nan
        seen = ops.monotonic_forward(bad, hard=hard, mask=mask)
        reached = np.zeros(x.shape, bool)
        reached[1, 4:, 6:] = True
        np.testing.assert_array_equal(np.isnan(seen), reached & mask)
        np.testing.assert_array_equal(w[~reached], seen[~reached])


def test_rows_with_nothing_to_attend_are_zero(isa: str) -> None:
    rng = np.random.default_rng(11)
    for S, dtype, form in itertools.product(SIZES, (np.float32, np.float64), FORMS):
        c = make_case(rng, 2, 3, S, dtype)
        c.scores, c.previous = np.abs(c.scores), None
        c.begin = rng.integers(0, S + 1, (2, 3))
        c.end, c.mask = c.begin.copy(), None
        c.begin[0, :2], c.end[0, :2] = 0, S
        for by_mask in (False, True):
            if by_mask:
                c.mask, c.begin, c.end = c.allowed, None, None
            weights, *gradients = c.everything(form)
            assert (weights[0, 0] > 0).any() and (weights[1] == 0).all() and (weights[0, 2] == 0).all()
            assert all((g[1] == 0).all() and (g[0, 2] == 0).all() for g in gradients)
    x = np.ones((1, 3, 4))
    weights = ops.monotonic_forward(x, mask=np.array([True, False, True])[:, None])
    assert weights[0, 0].all() and (weights[0, 1:] == 0).all()  # the walk has ended


def test_infinite_scores(isa: str) -> None:
    inf, nan = np.inf, np.nan
    x = np.array([[[-inf, -inf, -inf], [-inf, 2, -inf], [nan, 1, -inf], [inf, 1, 0], [-inf, nan, -inf]]], np.float32)
    want = [[0, 0, 0], [0, 1, 0], [nan, nan, 0], [nan, nan, nan], [0, nan, 0]]
    np.testing.assert_array_equal(ops.sparsemax_forward(x), [want])
    x = np.array([[[-inf, inf, -inf]]], np.float32)
    for hard in (False, True):
        np.testing.assert_array_equal(ops.monotonic_forward(x, hard=hard), [[[0, 1, 0]]])


@pytest.mark.parametrize("form", FORMS)
def test_empty_is_a_size(isa: str, form: str) -> None:
    rng = np.random.default_rng(12)
    for B, T, S, dtype in itertools.product((0, 1, 5), (0, 1, 5), (0, 1, 5), (np.float32, np.float64)):
        c = make_case(rng, B, T, S, dtype)
        c.previous = np.full((B, S), 0.2, dtype)
        for got, want in zip(c.everything(form), c.expected(form), strict=True):
            assert got.shape == want.shape and np.abs(got - want).max(initial=0) <= TOLERANCE[dtype] * 10


@pytest.mark.parametrize("form", FORMS)
def test_masks_broadcast(isa: str, form: str) -> None:
    rng = np.random.default_rng(13)
    c = make_case(rng, 3, 4, 5, np.float32)
    whole = rng.random((3, 4, 5)) < 0.6
    for mask in (
        whole,
        whole[:, :1],
        whole[:1],
        whole[0, 0],
        whole[:, :, :1],
        whole[0],
        np.array(True),
        whole[..., ::-1],
    ):
        c.mask = np.ascontiguousarray(np.broadcast_to(mask, (3, 4, 5)))
        want = c.everything(form)
        c.mask = mask
        assert_same_bits(c.everything(form), want)


# ---- the same bits ----


@pytest.mark.parametrize("form", FORMS)
def test_same_bits_for_any_number_of_threads(threads: None, form: str) -> None:
    rng = np.random.default_rng(14)
    for B, T, S in ((3, 70, 330), (40, 13, 150), (1, 300, 400)):
        c = make_case(rng, B, T, S, np.float32)
        c.mask = rng.random((B, 1, S)) < 0.8
        ops.set_num_threads(1)
        want = c.everything(form)
        for repeat in range(21):
            ops.set_num_threads((1, 2, 3, 4, 7, 8, 16)[repeat % 7])
            assert_same_bits(c.everything(form), want)


@pytest.mark.parametrize("form", FORMS)
def test_a_sentence_depends_on_neither_batch_nor_padding(isa: str, form: str) -> None:
    rng = np.random.default_rng(15)
    for case in range(300):
        dtype = (np.float32, np.float64)[case % 2]
        B, T, S = rng.integers(1, 6), rng.integers(1, 6), int(rng.choice([1, 2, 3, 5, 7, 11, 16, 17, 31, 33, 65]))
        c = make_case(rng, B, T, S, dtype, (0.1, 1, 10)[case % 3])
        together = c.everything(form)
        b = slice(case % B, case % B + 1)
        cut = lambda x, b=b: None if x is None else x[b]  # noqa: E731
        alone = Case(*map(cut, (c.scores, c.previous, c.begin, c.end, c.mask, c.dweights)))
        assert_same_bits(alone.everything(form), [x[b] for x in together])

        more_t, more_s = rng.integers(0, 4), rng.integers(0, 40)
        wider = ((0, 0), (0, more_t), (0, more_s))
        padded = Case(
            scores=np.pad(c.scores, wider, constant_values=np.nan),
            previous=None if c.previous is None else np.pad(c.previous, wider[::2]),
            begin=None if c.begin is None else np.pad(c.begin, wider[:2]),
            end=np.pad(np.full((B, T), S) if c.end is None else c.end, wider[:2]),
            mask=None if c.mask is None else np.pad(c.mask, wider),
            dweights=np.pad(c.dweights, ((0, 0), (0, more_t), (0, 0))),
        )
        padded.dweights = np.pad(padded.dweights, ((0, 0), (0, 0), (0, more_s)), constant_values=np.nan)
        wide = padded.everything(form)
        assert all((x[..., S:] == 0).all() for x in wide)
        assert_same_bits([x[:, :T, :S] if x.ndim == 3 else x[:, :S] for x in wide], together)


@pytest.mark.parametrize("form", FORMS)
def test_one_row_a_call_gives_the_bits_of_all_rows_at_once(isa: str, form: str) -> None:
    rng = np.random.default_rng(16)
    for S, dtype in itertools.product(SIZES, (np.float32, np.float64)):
        c = make_case(rng, 3, 5, S, dtype)
        weights, previous = c.forward(form), c.previous
        for t in range(5):
            row = lambda x, t=t: None if x is None else x[:, t : t + 1]  # noqa: E731
            one = Case(row(c.scores), previous, row(c.begin), row(c.end), row(c.mask), row(c.dweights))
            got = one.forward(form)
            assert_same_bits([got], [weights[:, t : t + 1]])
            previous = got[:, 0]


def test_any_layout_gives_the_same_bits_and_nothing_is_written_to(isa: str) -> None:
    rng = np.random.default_rng(17)
    c = make_case(rng, 3, 4, 37, np.float64)
    c.begin, c.end, c.mask = np.full((3, 4), 2), np.full((3, 4), 30), rng.random((3, 4, 37)) < 0.8
    c.previous = rng.random((3, 37))
    bent = Case(*(np.asfortranarray(x) for x in (c.scores, c.previous, c.begin, c.end, c.mask, c.dweights)))
    bent.scores = np.repeat(c.scores, 2, axis=-1)[..., ::2]
    for x in vars(bent).values():
        x.flags.writeable = False
    for form in FORMS:
        assert_same_bits(bent.everything(form), c.everything(form))


# ---- what is refused ----

GOOD: dict[str, dict[str, Any]] = {
    "sparsemax_forward": {"scores": np.zeros((2, 3, 7))},
    "sparsemax_backward": {"dweights": np.zeros((2, 3, 7)), "weights": np.zeros((2, 3, 7))},
    "monotonic_forward": {"scores": np.zeros((2, 3, 7)), "previous": np.zeros((2, 7))},
    "monotonic_backward": {
        "dweights": np.zeros((2, 3, 7)),
        "scores": np.zeros((2, 3, 7)),
        "weights": np.zeros((2, 3, 7)),
        "previous": np.zeros((2, 7)),
    },
}
RESTRICTED = ("sparsemax_forward", "monotonic_forward", "monotonic_backward")
ints = np.zeros((2, 3), np.int64)


def refused(error: type[Exception], op: str, message: str, **changes: Any) -> None:
    """The op raises this error with this one line, and a good call right after it works."""
    with pytest.raises(error, match=f"^{re.escape(f'{op}: {message}')}[^\n]*$"):
        getattr(ops, op)(**{**GOOD[op], **changes})
    getattr(ops, op)(**GOOD[op])


@pytest.mark.parametrize("op", RESTRICTED)
def test_wrong_restrictions(op: str) -> None:
    refused(TypeError, op, "mask has dtype float64, expected bool", mask=np.zeros((2, 3, 7)))
    refused(TypeError, op, "begin has dtype float64, expected int64", begin=np.zeros((2, 3)))
    refused(TypeError, op, "end has dtype int32, expected int64", end=ints.astype(np.int32))
    refused(ValueError, op, "mask has shape (2, 4, 7), expected one that", mask=np.zeros((2, 4, 7), bool))
    refused(ValueError, op, "begin has shape (2, 4), expected (B=2, T=3)", begin=np.zeros((2, 4), np.int64))
    refused(ValueError, op, "end has shape (6,), expected (B, T)", end=np.zeros(6, np.int64))
    refused(ValueError, op, "end[0, 0] is 8, expected begin=0 <= end <= S=7", end=ints + 8)
    refused(ValueError, op, "begin[0, 0] is -1, expected 0 <= begin", begin=ints - 1)
    refused(ValueError, op, "end[0, 0] is 4, expected begin=5 <= end <= S=7", begin=ints + 5, end=ints + 4)


@pytest.mark.parametrize(("op", "name"), [(op, name) for op, inputs in GOOD.items() for name in inputs])
def test_wrong_arrays(op: str, name: str) -> None:
    axes = "(B, S)" if name == "previous" else "(B, T, S)"
    refused(TypeError, op, f"{name} is of type list", **{name: [[0.0]]})
    refused(TypeError, op, f"{name} has dtype int64, expected float", **{name: GOOD[op][name].astype(np.int64)})
    refused(ValueError, op, f"{name} has shape (7,), expected {axes}", **{name: np.zeros(7)})
    if name != "previous":
        refused(TypeError, op, f"{name} is None", **{name: None})
    if op.endswith("backward") and name == "dweights":
        refused(TypeError, op, "dweights has dtype float32, expected float64", dweights=np.zeros((2, 3, 7), np.float32))
        refused(
            ValueError, op, "dweights has shape (2, 3, 6), expected (B=2, T=3, S=7) to", dweights=np.zeros((2, 3, 6))
        )


@pytest.mark.parametrize("op", ["monotonic_forward", "monotonic_backward"])
def test_wrong_previous(op: str) -> None:
    for shape in ((2, 6), (3, 7), (1, 7)):
        message = f"previous has shape {shape}, expected (B=2, S=7) to match scores (2, 3, 7)"
        refused(ValueError, op, message, previous=np.zeros(shape))
    refused(TypeError, op, "previous has dtype float32, expected float64", previous=np.zeros((2, 7), np.float32))
    if op == "monotonic_backward":
        message = "weights has shape (2, 4, 7), expected (B=2, T=3, S=7) to match scores (2, 3, 7)"
        refused(ValueError, op, message, weights=np.zeros((2, 4, 7)))


def test_hard_is_a_bool() -> None:
    for wrong in (1, None, "yes", np.ones(1, bool)):
        name = type(wrong).__name__
        refused(TypeError, "monotonic_forward", f"hard is of type {name}, expected a bool", hard=wrong)
    ops.monotonic_forward(np.zeros((1, 1, 1)), hard=np.bool_(True))  # type: ignore[arg-type]
