"""Scores, softmax, context and the joined op against tests/spec/ops.py: values, gradients, accuracy, edges."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from dhyan import ops
from spec import ops as reference

EPS = 2.0**-23
SIZES = (1, 2, 5, 7, 13, 40, 100)
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}  # of the largest value; the gates below are sharper, per quantity


@dataclass
class Case:
    """Inputs of one call, with ragged ranges or a mask or both."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    w: np.ndarray | None
    term: str
    scale: float
    begin: np.ndarray | None
    end: np.ndarray | None
    mask: np.ndarray | None

    @property
    def allowed(self) -> np.ndarray:
        shape = (*self.q.shape[:2], self.k.shape[1])
        return reference.may_attend(shape, self.begin, self.end, self.mask)

    def exact(self, *names: str) -> list[np.ndarray | None]:
        values = [getattr(self, name) for name in names]
        return [None if x is None else x.astype(np.float64) for x in values]

    def forward(self, **more: bool) -> tuple[np.ndarray, np.ndarray | None, ops.AttentionCache]:
        c = self
        return ops.attention_forward(
            c.q, c.k, c.v, c.w, term=c.term, scale=c.scale, begin=c.begin, end=c.end, mask=c.mask, **more
        )


def make_case(
    rng: np.random.Generator, shape: tuple[int, int, int, int, int], dtype: type, term: str, spread: float = 1.0
) -> Case:
    B, T, S, H, D = shape
    begin, end = np.sort(rng.integers(0, S + 1, (2, B, T)), axis=0)
    ranged, masked = rng.integers(0, 2, 2)
    normal = lambda *n: rng.normal(size=n).astype(dtype)  # noqa: E731
    return Case(
        q=normal(B, T, H) * dtype(spread),
        k=normal(B, S, H) * (dtype(spread) * rng.integers(0, 2, (B, S, 1)).astype(dtype) + dtype(1)),
        v=normal(B, S, D),
        w=normal(H) if term == "tanh" else None,
        term=term,
        scale=0.5,
        begin=begin if ranged else None,
        end=end if ranged else None,
        mask=rng.random((B, T, S)) < 0.7 if masked else None,
    )


def assert_close(got: np.ndarray | None, want: np.ndarray | None, tolerance: float) -> None:
    if want is None:
        assert got is None
        return
    assert got is not None and got.shape == want.shape and got.flags.c_contiguous
    error = np.abs(got - want).max(initial=0)
    assert error <= tolerance * max(1.0, np.abs(want).max(initial=0))


def shapes(rng: np.random.Generator, n: int) -> list[tuple[int, int, int, int, int]]:
    """Each size on every axis, in random company."""
    rows = [(int(rng.integers(1, 4)), *rng.permutation(SIZES)[:4].tolist()) for _ in range(n)]
    return [*rows, *((2, s, s, s, s) for s in SIZES[:-1])]


# ---- the article ----


def test_the_example_of_the_article() -> None:
    states = np.array([[[1, 0], [0.5, 0.5], [0, 1]]])
    query = np.array([[[0.7, 0.3]]])
    np.testing.assert_allclose(ops.score_forward(query, states, term="product"), [[[0.7, 0.5, 0.3]]], rtol=1e-15)
    context, weights, _ = ops.attention_forward(query, states, states, term="product")
    np.testing.assert_allclose(weights, [[[0.4018, 0.3289, 0.2693]]], atol=5e-5)
    np.testing.assert_allclose(context, [[[0.5662, 0.4338]]], atol=5e-5)  # .5663 .4337 from weights rounded first


# ---- values and gradients ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("term", ["product", "tanh"])
def test_every_op_agrees_with_the_reference(isa: str, dtype: type, term: str) -> None:
    rng = np.random.default_rng(7)
    near = TOLERANCE[dtype]
    for shape in shapes(rng, 12):
        c = make_case(rng, shape, dtype, term)
        q, k, v, w = c.exact("q", "k", "v", "w")
        scores = ops.score_forward(c.q, c.k, c.w, term=term, scale=c.scale)
        assert_close(scores, reference.score(q, k, w, term, c.scale), near)
        weights = ops.softmax_forward(scores, begin=c.begin, end=c.end, mask=c.mask)
        assert_close(weights, reference.softmax(scores.astype(np.float64), c.allowed), near)
        context = ops.context_forward(weights, c.v)
        exact_weights = weights.astype(np.float64)
        assert_close(context, reference.context(exact_weights, v), near)

        dscores, dcontext = (rng.normal(size=a.shape).astype(dtype) for a in (scores, context))
        got = ops.score_backward(dscores, c.q, c.k, c.w, term=term, scale=c.scale)
        want = reference.score_backward(dscores.astype(np.float64), q, k, w, term, c.scale)
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, near)
        assert_close(
            ops.softmax_backward(dscores, weights),
            reference.softmax_backward(dscores.astype(np.float64), exact_weights),
            near,
        )
        got = ops.context_backward(dcontext, weights, c.v)
        want = reference.context_backward(dcontext.astype(np.float64), exact_weights, v)
        for a, b in zip(got, want, strict=True):
            assert_close(a, b, near)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("term", ["product", "tanh"])
def test_the_joined_op_is_its_parts(isa: str, dtype: type, term: str) -> None:
    rng = np.random.default_rng(8)
    for shape in shapes(rng, 12):
        c = make_case(rng, shape, dtype, term)
        context, weights, cache = c.forward()
        scores = ops.score_forward(c.q, c.k, c.w, term=term, scale=c.scale)
        parts = ops.softmax_forward(scores, begin=c.begin, end=c.end, mask=c.mask)
        np.testing.assert_array_equal(weights, parts)
        np.testing.assert_array_equal(context, ops.context_forward(parts, c.v))

        small_context, none, small_cache = c.forward(need_weights=False)
        assert none is None
        np.testing.assert_array_equal(context, small_context)

        dcontext, dweights = (rng.normal(size=a.shape).astype(dtype) for a in (context, parts))
        gradients = ops.attention_backward(dcontext, cache, dweights)
        q, k, v, w, dc, dw = *c.exact("q", "k", "v", "w"), dcontext.astype(float), dweights.astype(float)
        want = reference.attention_backward(dc, dw, q, k, v, w, term, c.scale, c.allowed)
        # Errors of the weights are multiplied by scores of the size of sqrt(H).
        for a, b in zip(gradients, want, strict=True):
            assert_close(a, b, 20 * TOLERANCE[dtype])
        for again in (
            ops.attention_backward(dcontext, cache, dweights),
            ops.attention_backward(dcontext, small_cache, dweights),
        ):
            for a, b in zip(gradients, again, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("term", ["product", "tanh"])
def test_gradients_by_complex_step(isa: str, term: str) -> None:
    rng = np.random.default_rng(9)
    for shape in [(2, 3, 5, 7, 2), (1, 2, 13, 5, 3), (1, 1, 1, 1, 1), (1, 3, 4, 17, 2)]:
        c = make_case(rng, shape, np.float64, term)
        context, weights, cache = c.forward()
        dcontext, dweights = rng.normal(size=context.shape), rng.normal(size=weights.shape)

        def loss(q, k, v, w=None, c=c, dcontext=dcontext, dweights=dweights):
            context, weights = reference.attention(q, k, v, w, term, c.scale, c.allowed)
            return (context * dcontext).sum() + (weights * dweights).sum()

        inputs = [x for x in (c.q, c.k, c.v, c.w) if x is not None]
        gradients = ops.attention_backward(dcontext, cache, dweights)
        for i in range(len(inputs)):
            want = reference.complex_step(loss, inputs, i)
            np.testing.assert_allclose(gradients[i], want, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [3, 12, 25, 60, 1e4, 1e17])
def test_the_tanh_term_is_right_at_any_magnitude(isa: str, dtype: type, spread: float) -> None:
    """Pairs, single divisions and the direct kernel, side by side in one call."""
    rng = np.random.default_rng(10)
    for shape in [(2, 9, 13, 40, 3), (1, 1, 5, 100, 2), (1, 4, 70, 33, 1)]:
        c = make_case(rng, shape, dtype, "tanh", spread)
        q, k, w = c.exact("q", "k", "w")
        got = ops.score_forward(c.q, c.k, c.w, term="tanh")
        exact = reference.score(q, k, w, "tanh")
        assert np.abs(got - exact).max() <= 8 * np.abs(w).sum() * np.finfo(dtype).eps
        dscores = rng.normal(size=exact.shape).astype(dtype)
        gradients = ops.score_backward(dscores, c.q, c.k, c.w, term="tanh")
        for a, b in zip(gradients, reference.score_backward(dscores.astype(float), q, k, w, "tanh"), strict=True):
            assert_close(a, b, TOLERANCE[dtype])


@pytest.mark.parametrize("size", [1e-45, 1e-20, 1e9, 1e12, 1e17, 1e21])
def test_the_tanh_term_bears_any_weight(isa: str, size: float) -> None:
    """Shared divisions multiply w by other denominators: a huge w must take a path that does not overflow."""
    rng = np.random.default_rng(19)
    q, k = (rng.normal(size=(1, n, 70)).astype(np.float32) * np.float32(1.3) for n in (5, 9))
    w = (rng.choice([-1.0, 1.0], 70) * size).astype(np.float32)
    exact = reference.score(q.astype(float), k.astype(float), w.astype(float), "tanh")
    error = np.abs(ops.score_forward(q, k, w, term="tanh") - exact)
    assert error.max() <= max(8 * EPS * 70 * size, 70 * 2.0**-149)


@pytest.mark.parametrize("magnitude", [1e-45, 1e-30, 1e-10, 1e10, 1e17])
@pytest.mark.parametrize("term", ["product", "tanh"])
def test_finite_inputs_give_finite_outputs(isa: str, term: str, magnitude: float) -> None:
    rng = np.random.default_rng(11)
    sign = lambda *n: (rng.choice([-1.0, 1.0], n) * magnitude).astype(np.float32)  # noqa: E731
    w = sign(40) if term == "tanh" else None
    context, weights, cache = ops.attention_forward(sign(2, 3, 40), sign(2, 9, 40), sign(2, 9, 5), w, term=term)
    assert np.isfinite(context).all() and np.isfinite(weights).all()
    if magnitude <= 1e10:
        for g in ops.attention_backward(np.ones_like(context), cache):
            assert g is None or np.isfinite(g).all()


# ---- accuracy, float32 ----


@pytest.mark.parametrize("spread", [0.01, 1, 10, 80, 1000])
def test_softmax_weights_within_4_eps(isa: str, spread: float) -> None:
    rng = np.random.default_rng(12)
    for n in (1, 2, 5, 17, 100, 1000, 65536):
        scores = (rng.normal(size=(1, 3, n)) * spread).astype(np.float32)
        weights = ops.softmax_forward(scores).astype(np.float64)
        exact = reference.softmax(scores.astype(np.float64), np.ones(scores.shape, bool))
        normal = exact >= 2.0**-126
        assert (np.abs(weights - exact)[normal] <= 4 * EPS * exact[normal]).all()
        assert np.abs(weights.sum(-1) - 1).max() <= EPS


@pytest.mark.parametrize("H", [5, 64, 512, 1500])
def test_scores_and_context_within_their_gates(isa: str, H: int) -> None:
    rng = np.random.default_rng(H)
    q, k = (rng.normal(size=(2, n, H)).astype(np.float32) for n in (7, 33))
    w = rng.normal(size=H).astype(np.float32)
    for a, b, gate in [(q, k, 4), (abs(q), abs(k), 4 + H / 8)]:
        error = np.abs(
            ops.score_forward(a, b, term="product") - reference.score(a.astype(float), b.astype(float), None, "product")
        )
        size = np.einsum("bth,bsh->bts", np.abs(a), np.abs(b), dtype=float)
        assert (error <= gate * EPS * size).all()
    error = np.abs(
        ops.score_forward(q, k, w, term="tanh") - reference.score(q.astype(float), k.astype(float), w, "tanh")
    )
    reach = np.maximum(1, np.abs(q[:, :, None] + k[:, None]))
    assert (error <= 8 * EPS * np.einsum("h,btsh->bts", np.abs(w), reach)).all()

    weights = ops.softmax_forward(rng.normal(size=(2, 7, H)).astype(np.float32))
    for v in (rng.normal(size=(2, H, 19)), rng.random((2, H, 19))):
        v = v.astype(np.float32)
        error = np.abs(ops.context_forward(weights, v) - reference.context(weights.astype(float), v.astype(float)))
        size = reference.context(weights.astype(float), np.abs(v).astype(float))
        assert (error <= 4 * EPS * size).all()


@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("shape", [(1, 3, 7, 16, 8), (1, 20, 20, 64, 32)])
def test_gradient_errors_against_plain_float32_numpy(isa: str, term: str, shape: tuple[int, ...]) -> None:
    """At most twice the error of NumPy on the same inputs plus 4 eps of the largest gradient, worst of the draws."""
    rng = np.random.default_rng(13)
    B, T, S, H, _ = shape
    ours, numpy = np.zeros(3), np.zeros(3)
    for _ in range(256 if T * S * H < 2000 else 48):
        q, k = (rng.normal(size=(B, n, H)).astype(np.float32) for n in (T, S))
        w = rng.normal(size=H).astype(np.float32) if term == "tanh" else None
        dscores = rng.normal(size=(B, T, S)).astype(np.float32)
        exact_inputs = [None if x is None else x.astype(np.float64) for x in (dscores, q, k, w)]
        exact = reference.score_backward(*exact_inputs, term)
        plain = reference.score_backward(dscores, q, k, w, term)
        got = ops.score_backward(dscores, q, k, w, term=term)
        for i, (a, b, e) in enumerate(zip(got, plain, exact, strict=True)):
            if e is not None:
                ours[i] = max(ours[i], np.abs(a - e).max() / np.abs(e).max())
                numpy[i] = max(numpy[i], np.abs(b - e).max() / np.abs(e).max())
    assert (ours <= 2 * numpy + 4 * EPS).all(), (ours / EPS, numpy / EPS)


# ---- masks and edges ----


@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
def test_what_is_masked_cannot_be_seen(isa: str, term: str, poison: float) -> None:
    rng = np.random.default_rng(14)
    for shape in [(2, 5, 7, 13, 40), (1, 9, 20, 40, 5), (2, 1, 33, 16, 16)]:
        for by_range in (False, True):
            c = make_case(rng, shape, np.float32, term)
            B, T, S = c.allowed.shape
            hidden = rng.random((B, S)) < 0.4
            c.begin = c.end = c.mask = None
            if by_range:
                hidden = np.arange(S) >= rng.integers(0, S, (B, 1))
                c.end = np.broadcast_to((~hidden).sum(1, keepdims=True), (B, T)).copy()
            else:
                c.mask = np.broadcast_to(~hidden[:, None], (B, T, S)) & (rng.random((B, T, S)) < 0.8)
            dcontext, dweights = rng.normal(size=(B, T, shape[4])), rng.normal(size=(B, T, S))
            results = []
            for poisoned in (False, True):
                if poisoned:
                    c.k, c.v = c.k.copy(), c.v.copy()
                    c.k[hidden] = c.v[hidden] = poison
                    dweights = np.where(hidden[:, None], poison, dweights)
                context, weights, cache = c.forward()
                gradients = ops.attention_backward(dcontext.astype(np.float32), cache, dweights.astype(np.float32))
                low_memory = ops.attention_backward(
                    dcontext.astype(np.float32), c.forward(need_weights=False)[2], dweights.astype(np.float32)
                )
                results.append([context, weights, *gradients, *low_memory])
            for clean, seen in zip(*results, strict=True):
                if clean is not None:
                    assert np.isfinite(clean).all()
                    np.testing.assert_array_equal(clean.view(np.uint32), seen.view(np.uint32))
            assert (results[0][1][np.broadcast_to(hidden[:, None], (B, T, S))] == 0).all()


def test_a_nan_stays_in_its_row(isa: str) -> None:
    rng = np.random.default_rng(15)
    for term in ("product", "tanh"):
        c = make_case(rng, (2, 9, 20, 40, 5), np.float32, term)
        c.begin = c.end = c.mask = None
        context, weights, _ = c.forward()
        c.q = c.q.copy()
        c.q[1, 4, 3] = np.nan
        bad_context, bad_weights, _ = c.forward()
        assert np.isnan(bad_context[1, 4]).all() and np.isnan(bad_weights[1, 4]).all()
        for good, bad in ((context, bad_context), (weights, bad_weights)):
            good[1, 4] = bad[1, 4] = 0
            np.testing.assert_array_equal(good, bad)


def test_rows_with_nothing_to_attend_are_zero(isa: str) -> None:
    rng = np.random.default_rng(16)
    for term, dtype in itertools.product(("product", "tanh"), (np.float32, np.float64)):
        c = make_case(rng, (2, 6, 9, 20, 7), dtype, term)
        c.begin, c.end = np.full((2, 6), 3), np.full((2, 6), 3)
        c.begin[0, 2], c.end[0, 2] = 0, 9
        c.mask = None
        context, weights, cache = c.forward()
        empty = np.ones((2, 6), bool)
        empty[0, 2] = False
        dq, dk, dv, _ = ops.attention_backward(np.ones_like(context), cache, np.ones_like(weights))
        for x in (context, weights, dq):
            assert (x[empty] == 0).all()
        assert np.abs(context[0, 2]).max() > 0 and np.abs(dq[0, 2]).max() > 0
        assert (dk[1] == 0).all() and (dv[1] == 0).all()

        c.begin = c.end = None
        c.mask = np.zeros((1, 6, 1), bool)
        context, weights, cache = c.forward()
        assert (context == 0).all() and (weights == 0).all()
        for g in ops.attention_backward(np.ones_like(context), cache):
            assert g is None or (g == 0).all()


def test_masks_broadcast(isa: str) -> None:
    rng = np.random.default_rng(17)
    scores = rng.normal(size=(3, 4, 5)).astype(np.float32)
    whole = rng.random((3, 4, 5)) < 0.6
    for mask in (
        whole,
        whole[:, :1],
        whole[:1],
        whole[0, 0],
        whole[:, :, :1],
        whole[0],
        np.bool_(True),
        whole.T.copy().T,
    ):
        mask = np.asarray(mask)
        spread = np.broadcast_to(mask, (3, 4, 5))
        want = ops.softmax_forward(scores, mask=np.ascontiguousarray(spread))
        np.testing.assert_array_equal(ops.softmax_forward(scores, mask=mask), want)
        assert ((want > 0) == spread).all()


def test_rows_of_minus_infinity_have_nothing_to_attend(isa: str) -> None:
    scores = np.array([[[-np.inf, -np.inf], [-np.inf, 2.0], [np.nan, 1.0]]], np.float32)
    np.testing.assert_array_equal(ops.softmax_forward(scores), [[[0, 0], [0, 1], [np.nan, np.nan]]])


@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_empty_is_a_size(isa: str, term: str, dtype: type) -> None:
    rng = np.random.default_rng(18)
    for B, T, S, H, D in itertools.product((0, 1, 5), repeat=5):
        q, k, v = (rng.normal(size=n).astype(dtype) for n in ((B, T, H), (B, S, H), (B, S, D)))
        w = rng.normal(size=H).astype(dtype) if term == "tanh" else None
        context, weights, cache = ops.attention_forward(q, k, v, w, term=term)
        exact = reference.attention(q, k, v, w, term, 1.0, np.ones((B, T, S), bool))
        assert_close(context, exact[0], 1e-5)
        assert_close(weights, exact[1], 1e-5)
        dcontext = rng.normal(size=context.shape).astype(dtype)
        gradients = ops.attention_backward(dcontext, cache)
        want = reference.attention_backward(dcontext, 0.0, q, k, v, w, term, 1.0, np.ones((B, T, S), bool))
        for a, b in zip(gradients, want, strict=True):
            assert_close(a, b, 1e-4)
        for a, b in zip(
            ops.score_backward(weights, q, k, w, term=term),
            reference.score_backward(weights, q, k, w, term),
            strict=True,
        ):
            assert_close(a, b, 1e-5)


def test_nothing_of_size_btsh_is_allocated() -> None:
    """Forward and backward at B32 T100 S100 H512 D512 (B*T*S*H is 655 MB) within 64 MB, outputs included."""
    program = """
import resource, numpy as np
from dhyan import ops
rng = np.random.default_rng(0)
q, k, v = (rng.standard_normal((32, 100, 512), np.float32) for _ in range(3))
w = rng.standard_normal(512, np.float32)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
context, weights, cache = ops.attention_forward(q, k, v, w, term="tanh")
ops.attention_backward(context, cache)
print(peak() - before)
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert int(out.stdout) < 64 * 1024
