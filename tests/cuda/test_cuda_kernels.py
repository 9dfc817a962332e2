"""The CUDA kernels against the float64 reference, on the CPU (cuda_emulator.py), with threads in two orders.

Sizes meet every kernel and its tails: one query (a warp a key), up to 4, more (tiles of three shapes).
What is particular to the tensor cores is in test_cuda_tensor.py.
Outputs start as NaN, memory ends where its page does. A relative norm error of 2e-6 is 16 eps of float32, of sums of
up to 100 terms; 16-bit results are rounded once at the end (2^-9 and 2^-12 of an element, a third of that in norm).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.cuda_emulator import COMPILER, Emulator
from helpers.cuda_problem import Problem, close
from spec import ops as reference

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")

TOLERANCE = {"float32": 2e-6, "float64": 1e-14, "float16": 4e-4, "bfloat16": 3e-3}
SIZES = [  # B, T, S, H, D
    (2, 1, 5, 7, 3),
    (1, 3, 40, 130, 8),
    (2, 4, 13, 16, 5),
    (2, 10, 37, 50, 33),
    (1, 16, 64, 48, 40),
    (2, 17, 65, 49, 65),
    (1, 70, 100, 100, 12),
    (1, 64, 128, 52, 20),
    (1, 40, 33, 20, 9),
    (1, 1, 1100, 4, 4),
    (1, 5, 1, 1, 1),
]


@pytest.mark.parametrize("backwards", [False, True], ids=["order", "reversed"])
@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_fused_attention(library: Path, dtype: str, term: str, backwards: bool) -> None:
    emulator = Emulator(library, dtype, backwards=backwards)
    for seed, sizes in enumerate(SIZES if dtype == "float32" else SIZES[2:6]):
        p = Problem(emulator, sizes, term, seed)
        context, weights = p.forward()
        want_context, want_weights = reference.attention(p.q, p.k, p.v, p.w, term, p.scale, p.allowed)
        fine = TOLERANCE[emulator.weight_dtype]
        close(weights, want_weights, 8 * fine)  # an error of a score is one of exp(score)
        close(context, want_context, 8 * TOLERANCE[dtype])
        assert not weights[~p.allowed].any()
        dweights = p.dweights if seed % 2 else None
        kept, again = p.backward(weights, dweights), p.backward(None, dweights)
        for got, same, want in zip(kept, again, p.want_backward(0.0 if dweights is None else dweights), strict=True):
            close(got, want, 16 * TOLERANCE[dtype], np.linalg.norm(want) + 1e-3 * np.sqrt(want.size))
            np.testing.assert_array_equal(got, same)
        np.testing.assert_array_equal(p.forward(need_weights=False)[0], context)


def test_the_order_of_threads_changes_no_bit(library: Path) -> None:
    """A kernel in which one thread reads what another has not yet written would give another result."""
    for term in ("product", "tanh"):
        for seed, sizes in enumerate(SIZES):
            one, two = (
                Problem(Emulator(library, "float32", backwards=backwards), sizes, term, seed)
                for backwards in (False, True)
            )
            first, second = one.forward(), two.forward()
            for a, b in zip(first, second, strict=True):
                np.testing.assert_array_equal(a, b)
            for a, b in zip(one.backward(first[1], None), two.backward(second[1], None), strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shift", [0, 4])
def test_single_ops(library: Path, shift: int) -> None:
    """Each op by itself, from memory that may be read in fours and from memory that may not."""
    emulator = Emulator(library, "float32", shift=shift)
    for seed, sizes in enumerate(SIZES):
        B, T, S, H, D = sizes
        for term in ("product", "tanh"):
            p = Problem(emulator, sizes, term, seed)
            scoring = [(p.q, False), (p.k, False), (p.w, False)]
            (scores,) = p.call("score_forward", scoring, [((B, T, S), True)])
            close(scores, reference.score(p.q, p.k, p.w, term, p.scale), 4e-6)
            dscores = p.dweights * (p.dweights > -0.5)
            outputs = [((B, T, H), False), ((B, S, H), False), ((H,) if term == "tanh" else None, False)]
            got = p.call("score_backward", [(dscores, True), *scoring], outputs)
            want = reference.score_backward(dscores, p.q, p.k, p.w, term, p.scale)
            for a, b in zip(got, [x for x in want if x is not None], strict=True):
                close(a, b, 4e-6)
        weights = reference.softmax(p.dweights, p.allowed).astype(np.float32).astype(np.float64)
        (got_weights,) = p.call("softmax_forward", [(p.dweights, True)], [((B, T, S), True)])
        close(got_weights, weights, 1e-6)
        (got_dscores,) = p.call("softmax_backward", [(p.dweights, True), (weights, True)], [((B, T, S), True)])
        want_dscores = reference.softmax_backward(p.dweights, weights)
        close(got_dscores, want_dscores, 4e-6, np.linalg.norm(want_dscores) + 1e-3)
        (context,) = p.call("context_forward", [(weights, True), (p.v, False)], [((B, T, D), False)])
        close(context, reference.context(weights, p.v), 2e-6)
        inputs = [(p.dcontext, False), (weights, True), (p.v, False)]
        got = p.call("context_backward", inputs, [((B, T, S), True), ((B, S, D), False)])
        for a, b in zip(got, reference.context_backward(p.dcontext, weights, p.v), strict=True):
            close(a, b, 2e-6)


@pytest.mark.parametrize("T", [1, 5, 20])
def test_what_is_masked_cannot_be_seen(library: Path, T: int) -> None:
    """NaN, infinity and 3e38 in masked keys and values change no bit."""
    emulator = Emulator(library, "float32")
    for term in ("product", "tanh"):
        p = Problem(emulator, (2, T, 70, 20, 9), term, 2)
        hidden = np.zeros((2, 70), bool)
        hidden[:, [3, 20, 66]] = True
        p.mask = ~np.broadcast_to(hidden[:, None], (2, T, 70))
        weights = p.forward()[1]
        before = [*p.forward(), *p.backward(weights, None), *p.backward(None, p.dweights)]
        for poison in (np.nan, np.inf, 3e38):
            p.k[hidden], p.v[hidden] = poison, poison
            after = [*p.forward(), *p.backward(weights, None), *p.backward(None, p.dweights)]
            for a, b in zip(before, after, strict=True):
                np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("T", [1, 6, 30])
def test_every_range_of_the_tanh_term(library: Path, T: int) -> None:
    """Right for any finite input, and a score's bits are those of its query and key: near, cut and far units mixed."""
    emulator = Emulator(library, "float32")
    rng = np.random.default_rng(3)
    S, H = 70, 100
    q, k, w = rng.normal(size=(1, T, H)), rng.normal(size=(1, S, H)), rng.normal(size=H)
    for size in (6.0, 9.0, 30.0, 42.0, 60.0, 1e5, 1e17, 3e38):
        q[0, rng.integers(0, T), rng.integers(0, H, 2)] = [size, -size]
        k[0, rng.integers(0, S), rng.integers(0, H, 2)] = [-size, size]
        k[0, 5, 7], q[0, 0, 7] = size, -0.9 * size
        a, b = emulator.rounded(q), emulator.rounded(k)
        for factor in (1.0, 1e-30, 1e17):
            inputs = [(a, False), (b, False), (emulator.rounded(w * factor), False)]
            (scores,) = emulator("score_forward", (1, T, S, H, 1), inputs, [((1, T, S), True)], term="tanh")
            want = reference.score(a, b, inputs[2][0], "tanh")
            assert np.abs(scores - want).max() <= 8 * 2.0**-23 * np.abs(inputs[2][0]).sum()
    g = rng.normal(size=(1, T, S)).astype(np.float32).astype(np.float64)
    outputs = [((1, T, H), False), ((1, S, H), False), ((H,), False)]
    for changed in (False, True):  # with a far key, and with that key far from being looked at
        inputs = [(g, True), (a, False), (b, False), (emulator.rounded(w), False)]
        got = emulator("score_backward", (1, T, S, H, 1), inputs, outputs, term="tanh")
        want = reference.score_backward(g, a, b, inputs[3][0], "tanh")
        for x, y in zip(got, want, strict=True):
            assert y is not None
            close(x, y, 3e-6)
        g[:, :, 5] = 0
        if not changed:
            b[0, 5] = np.nan  # no gradient comes from there: not seen
            without = emulator("score_backward", (1, T, S, H, 1), inputs, outputs, term="tanh")
            assert not any(np.isnan(x).any() for x in without)
            b[0, 5] = 1.0


def test_a_score_does_not_depend_on_the_tile(library: Path) -> None:
    """The same query and key in 16 x 32, 32 x 32 and 64 x 64 tiles."""
    emulator = Emulator(library, "float32")
    for term in ("product", "tanh"):
        p = Problem(emulator, (1, 64, 128, 60, 1), term, 0)
        bits = []
        for T, S in ((40, 30), (30, 31), (64, 128)):
            inputs = [(p.q[:, :T], False), (p.k[:, :S], False), (p.w, False)]
            (scores,) = emulator("score_forward", (1, T, S, 60, 1), inputs, [((1, T, S), True)], term=term)
            bits.append(scores[:, :30, :30])
        np.testing.assert_array_equal(bits[0], bits[1])
        np.testing.assert_array_equal(bits[0], bits[2])


@pytest.mark.parametrize("T", [1, 3, 12, 18])
@pytest.mark.parametrize("term", ["product", "tanh"])
def test_results_do_not_depend_on_padding_or_batch(library: Path, term: str, T: int) -> None:
    """A sentence alone, among others, and padded across each length at which a kernel is chosen: the same bits."""
    p = Problem(Emulator(library, "float32"), (3, T, 1100, 8, 6), term, 0)
    whole = p.q, p.k, p.v, p.dcontext
    for length, batches in ((12, ((1, 12), (1, 20), (3, 70))), (200, ((1, 200), (2, 1100)))):
        found = []
        for B, S in batches:
            p.sizes, p.end = (B, T, S, 8, 6), np.full((B, T), length)
            p.q, p.k, p.v, p.dcontext = whole[0][:B], whole[1][:B, :S], whole[2][:B, :S], whole[3][:B]
            context, weights = p.forward()
            dq, dk, dv = p.backward(weights, None)[:3]
            found.append((context[0], weights[0, :, :length], dq[0], dk[0, :length], dv[0, :length]))
        for bits in found[1:]:
            for a, b in zip(found[0], bits, strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_score_does_not_depend_on_its_neighbours(library: Path) -> None:
    emulator = Emulator(library, "float32")
    p = Problem(emulator, (1, 20, 70, 60, 4), "tanh", 0)
    near, far = p.k.copy(), p.k.copy()
    far[0, 1] *= 1e6
    far[0, 2] *= 12
    scores = [
        p.call("score_forward", [(p.q, False), (k, False), (p.w, False)], [((1, 20, 70), True)])[0] for k in (near, far)
    ]
    same = np.delete(np.arange(70), [1, 2])
    np.testing.assert_array_equal(scores[0][..., same], scores[1][..., same])


@pytest.mark.parametrize("sizes", [(0, 2, 3, 4, 5), (2, 0, 3, 4, 5), (2, 3, 0, 4, 5), (2, 3, 4, 0, 5), (2, 3, 4, 5, 0)])
@pytest.mark.parametrize("term", ["product", "tanh"])
def test_empty_is_a_size(library: Path, sizes: tuple[int, ...], term: str) -> None:
    p = Problem(Emulator(library, "float32"), sizes, term, 0)
    context, weights = p.forward()
    want = reference.attention(p.q, p.k, p.v, p.w, term, p.scale, p.allowed)
    close(context, want[0], 1e-6)
    close(weights, want[1], 1e-6)
    for got, expected in zip(p.backward(weights, None), p.want_backward(0.0), strict=True):
        close(got, expected, 1e-5)


def test_unit_rows(library: Path) -> None:
    emulator = Emulator(library, "float32")
    x = emulator.rounded(np.random.default_rng(0).normal(size=(11, 50)) * 1e-30)
    x[3] = 0
    (unit,) = emulator("unit_rows", (1, 1, 11, 50, 1), [(x, False)], [((11, 50), False)])
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    close(unit, np.divide(x, norm, where=norm > 0, out=np.zeros_like(x)), 1e-7)


def test_errors_name_the_op(library: Path) -> None:
    p = Problem(Emulator(library, "float32"), (2, 3, 5, 4, 2), "product", 0)
    p.end = np.full((2, 3), 5)
    p.end[1, 2] = 6
    with pytest.raises(RuntimeError, match=r"^attention_forward: end\[1, 2\] is 6, expected begin=0 <= end <= S=5$"):
        p.forward()
    p.end = None
    p.emulator.fail = True
    with pytest.raises(RuntimeError, match=r"^attention_forward: launch of kernel score_few failed .*LaunchFailure"):
        p.forward()
    p.emulator.fail = False
    p.forward()
