"""The products on the tensor cores (tensor_tiles.cuh) by emulation, which cuts sums as the hardware was measured to.

Gates are those of float32 for one op given its inputs (eps = 2^-23): scores 4 eps x sum of absolute terms on random
signs, context 4 eps x sum weights abs(v), gradients twice the error of float32 NumPy and 4 eps of the largest.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulator import COMPILER, Emulator
from helpers.cuda_problem import Problem
from spec import ops as reference

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")

EPS = 2.0**-23
Array = np.ndarray
SIXTEEN_BITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # half a unit of the last place, of an element


def scores_of(emulator: Emulator, q: Array, k: Array, scale: float = 1.0) -> Array:
    B, T, H = q.shape
    S = k.shape[1]
    inputs = [(q, False), (k, False), (None, False)]
    return emulator("score_forward", (B, T, S, H, 1), inputs, [((B, T, S), True)], scale=scale)[0]


def context_of(emulator: Emulator, weights: Array, v: Array) -> Array:
    B, T, S = weights.shape
    D = v.shape[2]
    inputs = [(weights, True), (v, False)]
    return emulator("context_forward", (B, T, S, 1, D), inputs, [((B, T, D), False)])[0]


def random_weights(rng: np.random.Generator, shape: tuple[int, ...], spread: float = 2.0) -> Array:
    scores = spread * rng.normal(size=shape)
    return reference.softmax(scores, np.ones(shape, bool)).astype(np.float32).astype(np.float64)


def test_every_size_within_the_gates(library: Path) -> None:
    """Tails in every direction, in both orders of threads, from aligned memory and not; the bits are the same."""
    rng = np.random.default_rng(0)
    emulators = [Emulator(library), Emulator(library, backwards=True), Emulator(library, shift=4)]
    sizes = [rng.integers(1, 71, 4) for _ in range(60)] + [np.array(n) for n in ((40, 33, 301, 7), (150, 70, 33, 131))]
    for T, S, H, D in sizes:
        T = max(T, 5)  # fewer are another kernel's
        q, k, v = (emulators[0].rounded(rng.normal(size=(1, *n))) for n in ((T, H), (S, H), (S, D)))
        weights = random_weights(rng, (1, T, S))
        scores, context = scores_of(emulators[0], q, k), context_of(emulators[0], weights, v)
        terms = np.abs(q) @ np.abs(k).swapaxes(1, 2)
        assert np.all(np.abs(scores - reference.score(q, k, None, "product")) <= 4 * EPS * terms)
        assert np.all(np.abs(context - weights @ v) <= 4 * EPS * (weights @ np.abs(v)))
        for other in emulators[1:]:
            np.testing.assert_array_equal(scores, scores_of(other, q, k))
            np.testing.assert_array_equal(context, context_of(other, weights, v))


@pytest.mark.parametrize("H", [1, 16, 257, 1024])
def test_a_long_sum_does_not_drift(library: Path, H: int) -> None:
    """Of one sign, where cutting always takes away: within 4 eps for 1,024 terms; cut at every step it were 30."""
    emulator, rng = Emulator(library), np.random.default_rng(H)
    q, k = (emulator.rounded(rng.uniform(0.5, 1, (1, n, H))) for n in (17, 20))
    want = reference.score(q, k, None, "product")
    assert np.abs(scores_of(emulator, q, k) / want - 1).max() <= 4 * EPS
    signed = q * rng.choice([-1.0, 1.0], q.shape)
    error = np.abs(scores_of(emulator, signed, k) - reference.score(signed, k, None, "product"))
    assert np.all(error <= 4 * EPS * want)


def test_gradients_like_numpy_s(library: Path) -> None:
    """dq, dk, dv and dweights against the same products in plain float32."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        T, S, H, D = (int(n) for n in (rng.integers(5, 60), *rng.integers(1, 60, 3)))
        p = Problem(Emulator(library), (2, T, S, H, D), "product", 3 * seed)
        p.begin = p.end = p.mask = None
        weights = random_weights(rng, (2, T, S))
        dscores = p.dweights * weights
        dscores = dscores.astype(np.float32).astype(np.float64)
        scoring = [(dscores, True), (p.q, False), (p.k, False), (None, False)]
        outputs = [((2, T, H), False), ((2, S, H), False), (None, False)]
        dq, dk = p.call("score_backward", scoring, outputs, restricted=False)
        inputs = [(p.dcontext, False), (weights, True), (p.v, False)]
        dweights, dv = p.call("context_backward", inputs, [((2, T, S), True), ((2, S, D), False)], restricted=False)
        scale = np.float64(p.scale)
        for got, a, b in (
            (dq / scale, dscores, p.k),
            (dk / scale, dscores.swapaxes(1, 2), p.q),
            (dv, weights.swapaxes(1, 2), p.dcontext),
            (dweights, p.dcontext, p.v.swapaxes(1, 2)),
        ):
            want = a @ b
            plain = a.astype(np.float32) @ b.astype(np.float32)
            gate = 2 * np.abs(plain - want).max() + 4 * EPS * np.abs(want).max()
            assert np.abs(got - want).max() <= gate


@pytest.mark.parametrize("dtype", SIXTEEN_BITS)
def test_16_bit_inputs(library: Path, dtype: str) -> None:
    """Their products are exact: scores are float32's; elsewhere the last rounding is nearly all the error."""
    emulator, rng = Emulator(library, dtype), np.random.default_rng(1)
    for T, S, H, D in ((7, 66, 130, 35), (17, 40, 70, 33), (66, 35, 130, 65), (130, 20, 16, 64)):
        q, k, v = (emulator.rounded(rng.normal(size=(2, *n))) for n in ((T, H), (S, H), (S, D)))
        error = np.abs(scores_of(emulator, q, k) - reference.score(q, k, None, "product"))
        assert np.all(error <= 4 * EPS * (np.abs(q) @ np.abs(k).swapaxes(1, 2)))
        weights = random_weights(rng, (2, T, S))
        want, size = weights @ v, weights @ np.abs(v)
        smallest = 2.0**-25 if dtype == "float16" else 0.0
        assert np.all(
            np.abs(context_of(emulator, weights, v) - want)
            <= SIXTEEN_BITS[dtype] * np.abs(want) + 2.0**-15 * size + smallest
        )


@pytest.mark.parametrize("dtype", ["float32", *SIXTEEN_BITS])
def test_the_tile_changes_no_bit(library: Path, dtype: str) -> None:
    """Tiles of 16 x 32, 32 x 32, 64 x 64, 128 x 64: a row and a column have the same bits among few and among many."""
    emulator, rng = Emulator(library, dtype), np.random.default_rng(2)
    q, k = (emulator.rounded(rng.normal(size=(1, n, 70))) for n in (200, 150))
    whole = scores_of(emulator, q, k)
    weights = random_weights(rng, (1, 200, 60))
    v = emulator.rounded(rng.normal(size=(1, 60, 150)))
    context = context_of(emulator, weights, v)
    for T, S in ((5, 50), (16, 150), (20, 20), (30, 70), (64, 64), (100, 20), (128, 64), (180, 149)):
        np.testing.assert_array_equal(scores_of(emulator, q[:, :T], k[:, :S]), whole[:, :T, :S])
        np.testing.assert_array_equal(context_of(emulator, weights[:, :T], v[:, :, :S]), context[:, :T, :S])


@pytest.mark.parametrize("T", [5, 17, 70, 130])
def test_results_do_not_depend_on_padding_or_batch(library: Path, T: int) -> None:
    """Alone, among others, padded: also where other tiles are taken, and where a tile begins within a range."""
    p = Problem(Emulator(library), (3, T, 300, 40, 35), "product", 0)
    whole = p.q, p.k, p.v, p.dcontext
    for first, last in ((0, 12), (21, 130)):
        found = []
        for B, S in ((1, last), (1, 135), (3, 300)):
            p.sizes = (B, T, S, 40, 35)
            p.begin, p.end = np.full((B, T), first), np.full((B, T), last)
            p.q, p.k, p.v, p.dcontext = whole[0][:B], whole[1][:B, :S], whole[2][:B, :S], whole[3][:B]
            context, weights = p.forward()
            dq, dk, dv = p.backward(weights, None)
            keys = slice(first, last)
            found.append((context[0], weights[0, :, keys], dq[0], dk[0, keys], dv[0, keys]))
            assert not dk[:, last:].any() and not dv[:, :first].any()
        for bits in found[1:]:
            for a, b in zip(found[0], bits, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_row_does_not_depend_on_the_ranges_of_others(library: Path) -> None:
    """A tile begins and ends where any of its rows does; a row adds the same units of 16 wherever that is."""
    p = Problem(Emulator(library), (1, 20, 90, 33, 40), "product", 0)
    found = []
    for first, last in ((21, 70), (3, 90), (20, 71), (40, 60)):
        p.begin, p.end = np.full((1, 20), first), np.full((1, 20), last)
        p.begin[0, 5], p.end[0, 5] = 21, 70
        context, weights = p.forward()
        found.append((context[0, 5], weights[0, 5], p.backward(weights, None)[0][0, 5]))
    for bits in found[1:]:
        for a, b in zip(found[0], bits, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("T", [10, 40])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3.4e38])
def test_what_has_weight_0_is_not_seen(library: Path, poison: float, T: int) -> None:
    """Masked keys and values, and whole rows of the context's gradient beside weights of 0."""
    p = Problem(Emulator(library), (1, T, 70, 33, 40), "product", 0)
    hidden = [0, 15, 16, 69]
    p.mask = np.ones((1, T, 70), bool)
    p.mask[:, :, hidden] = False
    p.mask[:, 7] = False  # an empty row
    before = [*p.forward(), *p.backward(p.forward()[1], None), *p.backward(None, p.dweights)]
    assert not before[0][:, 7].any()
    p.k[:, hidden], p.v[:, hidden] = poison, poison
    p.dcontext[:, 7], p.q[:, 7] = poison, poison
    after = [*p.forward(), *p.backward(p.forward()[1], None), *p.backward(None, p.dweights)]
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", ["float32", *SIXTEEN_BITS])
def test_what_is_not_finite_stays_where_it_is_seen(library: Path, dtype: str) -> None:
    """As in plain arithmetic: Inf times a number, Inf - Inf, NaN; every other element keeps its bits."""
    emulator, rng = Emulator(library, dtype), np.random.default_rng(3)
    q, k, v = (emulator.rounded(rng.normal(size=(1, n, 40))) for n in (33, 50, 50))
    weights = random_weights(rng, (1, 33, 50))
    weights[0, 5, 20] = 0
    scores, context = scores_of(emulator, q, k), context_of(emulator, weights, v)
    k[0, 3, 7], k[0, 4, [1, 2]], k[0, 6, 0] = np.inf, [np.inf, -np.inf], np.nan
    q[0, 9, 39] = -np.inf
    v[0, 20, 0], v[0, 20, 1], v[0, [20, 21], 2] = np.inf, np.nan, [np.inf, -np.inf]
    with np.errstate(invalid="ignore"):
        want = q @ k.swapaxes(1, 2)
        want_context = weights @ v
        want_context[0, 5] = np.delete(weights[0, 5], 20) @ np.delete(v[0], 20, axis=0)
    for got, right, before in (
        (scores_of(emulator, q, k), want, scores),
        (context_of(emulator, weights, v), want_context, context),
    ):
        clean = np.isfinite(right)
        np.testing.assert_array_equal(got[~clean], right[~clean])
        changed = np.zeros_like(clean)
        changed[0, 5, :3] = True  # finite, and by other sums
        np.testing.assert_array_equal(got[clean & ~changed], before[clean & ~changed])
        np.testing.assert_allclose(got[clean], right[clean], rtol=1e-2, atol=1e-2)
    p = Problem(emulator, (1, 33, 50, 40, 40), "product", 0)
    gradients = p.backward(p.forward()[1], None)
    p.dcontext[0, 8] = np.nan
    dq = p.backward(p.forward()[1], None)[0]
    assert np.isnan(dq[0, 8]).all()
    np.testing.assert_array_equal(np.delete(dq, 8, 1), np.delete(gradients[0], 8, 1))


def test_from_the_smallest_to_the_largest(library: Path) -> None:
    """Finite inputs, finite results; where the parts overflow and the sum does not, the sum. Of a factor is lost what
    bfloat16 cannot hold, 2^-126."""
    emulator, rng = Emulator(library), np.random.default_rng(4)
    for size in (1e-45, 1e-38, 1e-30, 1e-20, 1.0, 1e17, 1e18):
        q, k = (emulator.rounded(size * rng.normal(size=(1, n, 50))) for n in (20, 37))
        error = np.abs(scores_of(emulator, q, k) - reference.score(q, k, None, "product"))
        terms = np.abs(q) @ np.abs(k).swapaxes(1, 2)
        lost = 2.0**-126 * (np.abs(q).sum(-1)[..., None] + np.abs(k).sum(-1)[:, None])
        assert np.all(error <= 4 * EPS * terms + lost + 50 * 2.0**-149)
    largest = float(np.finfo(np.float32).max)
    q, k = np.full((1, 20, 4), largest), np.zeros((1, 17, 4))
    k[0, 0], k[0, 1] = [1, 0, 0, 0], [1, -1, 1, 0]
    k[0, 2], k[0, 3], k[0, 4] = [2, 0, 0, 0], [-2, 0, 0, 0], [0.5, 0.25, 0.125, 0.0625]
    want = np.zeros(17)
    want[:5] = [largest, largest, np.inf, -np.inf, largest * 0.9375]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(scores_of(emulator, q, k)[0], np.tile(want.astype(np.float32), (20, 1)))
    weights = np.tile(np.array([0.5, 0.25, 0.25]), (1, 20, 1))
    v = np.full((1, 3, 70), largest)
    np.testing.assert_array_equal(context_of(emulator, weights, v), np.full((1, 20, 70), largest))
    np.testing.assert_array_equal(context_of(emulator, 0 * weights, v), np.zeros((1, 20, 70)))


@pytest.mark.parametrize("values", ["widest", "boundary"])
def test_awkward_digits(library: Path, values: str) -> None:
    """Mantissas for which the parts' rests are largest, alone in their sum: H = 1 shows each product's error."""
    emulator = Emulator(library)
    bits = np.arange(0, 1 << 23, 977 if values == "widest" else 1 << 15)
    x = (np.uint32(0x3F800000) | bits.astype(np.uint32)).view(np.float32).astype(np.float64)
    if values == "boundary":  # beside a tie of the first and of the second rounding
        x = np.concatenate([x + 2.0**-8 + d * EPS for d in (-1, 0, 1)] + [x + 2.0**-16 + d * EPS for d in (-1, 0, 1)])
        x = x.astype(np.float32).astype(np.float64)
    x = np.random.default_rng(5).permutation(x)[:300]
    q, k = x[None, :150, None], -x[None, 150:, None]
    want = q * k.swapaxes(1, 2)
    error = np.abs(scores_of(emulator, q, k) / want - 1)
    assert error.max() <= 1.5 * EPS
